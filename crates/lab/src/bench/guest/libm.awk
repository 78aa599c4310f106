# What a C library computes: eight calls a round.
BEGIN {
    for (i = 1; i <= 300000; i++) {
        x = i / 1000
        sum += sin(x) * exp(-x / 300) + log(x) * cos(x) + sqrt(x) + atan2(x, 3) + x ^ 0.37 + 1.01 ^ x
    }
    printf "%.9g\n", sum
}
