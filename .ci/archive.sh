# For the scripts beside it, which source it: where this host gets Debian from.

# Prints the address of the archive that offers release or suite $1: that of the entry, in either source format, that
# names it. Nothing if there is none.
archive_uri() {
    awk -v suite="$1" '
        FILENAME ~ /\.sources$/ {
            if (/^URIs:/) uri = $2
            if (/^Suites:/) for (i = 2; i <= NF; i++) if ($i == suite) { print uri; exit }
            next
        }
        /^deb / { for (i = 2; i < NF; i++) if ($(i + 1) == suite) { print $i; exit } }
    ' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true
}
