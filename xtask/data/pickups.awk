# What a file of pick-ups says, computed in another language than Doorstep's, to be compared with the export of a run:
#   zcat lade_pickup.csv.gz | awk -f pickups.awk
# For each delivery a line: its key, a tab, and its line in the export.
# The file's clock is eight hours ahead of UTC and its times lack the year, which is 2022. None of its numbers ends in a zero behind the
# point, so that they are written as they stand.
BEGIN {
    FS = ","
    split("31 28 31 30 31 30 31 31 30 31 30 31", days, " ")
}
NR == 1 { next }
NF != 19 { print "not 19 fields: " $0 > "/dev/stderr"; exit 1 }
{
    fixes = ($16 != "") + ($13 != "")
    # The fix with the latest time; of two at one moment the pick-up's, which is told last.
    last = ""
    if ($16 != "") last = fix($16, $17, $18)
    if ($13 != "" && $13 >= $16) last = fix($13, $14, $15)
    key = "delivery/" $1
    line = "{\"key\":\"" key "\",\"state\":{\"status\":\"picked_up\",\"courier\":\"" $4 "\",\"accepted_at\":\"" utc($5) "\""
    line = line ",\"picked_up_at\":\"" utc($12) "\",\"fixes\":" fixes
    if (fixes > 0) line = line ",\"last_fix\":" last
    line = line ",\"pick_up_position\":" position($8, $9)
    line = line ",\"window\":{\"start\":\"" utc($6) "\",\"end\":\"" utc($7) "\"}"
    line = line label("city", $3) label("region", $2) label("area", $10) label("area_kind", $11)
    printf "%s\t%s}}\n", key, line
}
function fix(time, lng, lat) {
    return "{\"position\":" position(lng, lat) ",\"recorded_at\":\"" utc(time) "\"}"
}
function position(lng, lat) {
    return "{\"longitude\":" lng ",\"latitude\":" lat "}"
}
function label(name, text) {
    return text == "" ? "" : ",\"" name "\":\"" text "\""
}
# `05-01 07:59:00` as `2022-04-30T23:59:00Z`.
function utc(text,    month, day, hour) {
    month = substr(text, 1, 2) + 0
    day = substr(text, 4, 2) + 0
    hour = substr(text, 7, 2) - 8
    if (hour < 0) { hour += 24; day-- }
    if (day == 0) { month--; day = days[month] }
    return sprintf("2022-%02d-%02dT%02d:%sZ", month, day, hour, substr(text, 10))
}
