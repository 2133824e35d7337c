# What a web server's log says, computed in another language than Doorstep's, to be compared with the report of a run:
#   zcat apache_access.log.gz | LC_ALL=C awk -f access_log.awk
# For each hour and endpoint a line: both, a tab, and the line of `consumers show access_log --json`.
# All times of the file are in UTC, no request has an escape, and the thousand endpoints that come first are told apart, but for paths
# of more than 500 bytes.
BEGIN {
    FS = "\""
    split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", names, " ")
    for (i in names) months[names[i]] = sprintf("%02d", i)
}
NF != 7 { next }
{
    split($1, client, /[][]/)
    split(client[2], time, /[\/: ]/)
    hour = time[3] "-" months[time[2]] "-" time[1] "T" time[4] ":00Z"
    split($2, request, " ")
    sub(/[?#].*/, "", request[2])
    endpoint = length(request[2]) > 500 ? "other" : request[1] " " request[2]
    if (!(endpoint in known)) {
        if (count < 1000) { known[endpoint]; count++ } else endpoint = "other"
    }
    split($3, result, " ")
    key = hour " " endpoint
    hours[key] = hour
    endpoints[key] = endpoint
    requests[key]++
    client_errors[key] += result[1] >= 400 && result[1] < 500
    server_errors[key] += result[1] >= 500
    bytes[key] += result[2]
    sum++
}
END {
    for (key in requests) {
        printf "%s\t{\"hour\":\"%s\",\"endpoint\":\"%s\",\"requests\":%d,", key, hours[key], endpoints[key], requests[key]
        printf "\"client_errors\":%d,\"server_errors\":%d,", client_errors[key], server_errors[key]
        printf "\"bytes\":%.0f,\"p50_us\":null,\"p99_us\":null}\n", bytes[key]
    }
    printf "sum\t{\"requests\":%d,\"dropped\":0}\n", sum
}
