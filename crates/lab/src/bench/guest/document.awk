# A JSON document: an array of records.
BEGIN {
    printf "["
    for (i = 0; i < 4000; i++)
        printf "%s{\"id\":%d,\"name\":\"n%d\",\"tags\":[%d,%d]}", i ? "," : "", i, i * 7 % 4001, i % 5, i % 3
    print "]"
}
