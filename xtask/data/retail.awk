# What a retail file says, computed in another language than Doorstep's, to be compared with the exports of a run:
#   zcat online_retail.csv.gz | awk -f retail.awk
# For each stock, order and return a line: its key, a tab, and what its line in the export has to begin with.
# Fields are counted from both ends, since only the description in the middle may hold commas. Amounts are whole thousandths, which
# stay exact in awk's numbers.
BEGIN { FS = "," }
NR == 1 { next }
{
    invoice = $1; code = $2; quantity = $(NF - 4) + 0; price = $(NF - 2)
    point = index(price, ".")
    if (point == 0) { whole = price; part = "" } else { whole = substr(price, 1, point - 1); part = substr(price, point + 1) }
    thousandths = substr(part "000", 1, 3) + 0
    if (length(part) > 3) { print "more than three decimals: " price > "/dev/stderr"; exit 1 }
    if (substr(price, 1, 1) == "-") next # refused: a negative price
    cents = whole * 1000 + thousandths
    cancelled = substr(invoice, 1, 1) == "C"
    on_hand[code] += (quantity < 0 && !cancelled) ? quantity : -quantity
    movements[code]++
    subject = (cancelled ? "return/" : "order/") invoice
    lines[subject]++
    total[subject] += quantity * cents
}
# An amount in thousandths as Doorstep writes it: at least two decimals, and no zero beyond.
function money(thousandths,    text, sign) {
    sign = thousandths < 0 ? "-" : ""
    text = sprintf("%04.0f", thousandths < 0 ? -thousandths : thousandths)
    text = substr(text, 1, length(text) - 3) "." substr(text, length(text) - 2)
    sub(/0$/, "", text)
    return sign text
}
END {
    for (code in on_hand)
        printf "stock/%s\t{\"key\":\"stock/%s\",\"state\":{\"on_hand\":%d,\"movements\":%d,\n", code, code, on_hand[code], movements[code]
    for (subject in lines)
        printf "%s\t{\"key\":\"%s\",\"state\":{\"line_count\":%d,\"total\":\"%s\",\n", subject, subject, lines[subject], money(total[subject])
}
