# What a retail file says, computed in another language than Doorstep's, to be compared with the exports of a run:
#   zcat online_retail.csv.gz | awk -f retail.awk | LC_ALL=C sort
# A line for each stock:   stock/CODE <tab> pieces on hand <tab> movements
# A line for each invoice: order/NO or return/NO <tab> lines <tab> total in thousandths
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
END {
    for (code in on_hand) printf "stock/%s\t%d\t%d\n", code, on_hand[code], movements[code]
    for (subject in lines) printf "%s\t%d\t%.0f\n", subject, lines[subject], total[subject]
}
