# Interpreted code of the usual kinds: dictionaries, strings, lists, calls, objects, big numbers.


class Queens:
    def __init__(self, side):
        self.side = side
        self.columns, self.up, self.down = set(), set(), set()

    def count(self, row=0):
        if row == self.side:
            return 1
        found = 0
        for column in range(self.side):
            if column in self.columns or row + column in self.up or row - column in self.down:
                continue
            self.columns.add(column), self.up.add(row + column), self.down.add(row - column)
            found += self.count(row + 1)
            self.columns.remove(column), self.up.remove(row + column), self.down.remove(row - column)
        return found


words = {}
for number in range(40000):
    word = "w%d" % (number * 7919 % 5003)
    words[word] = words.get(word, 0) + len(word)
order = sorted(words.items(), key=lambda item: (item[1], item[0]))
big = 1
for number in range(1, 400):
    big *= number
print(Queens(7).count(), order[0][0], order[-1][0], sum(map(int, str(big))), sum(x * x % 7 for x in range(60000)))
