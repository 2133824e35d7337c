#!/bin/sh
# Debian's mail server, opensmtpd, as root: opensmtpd.sh PORT FILE
#
# Accepted mails stay in its queue. FILE gets the subjects of those that were accepted since it was created.
set -eu
port=$1 file=$2
[ -e "$file" ] || : > "$file"
[ -e "$file.since" ] || : > "$file.since"

cat > "$file.conf" <<CONF
table recipients { "@" = "nobody" }
listen on 127.0.0.1 port $port
action "keep" mda "/bin/cat" virtual <recipients>
match from any for any action "keep"
CONF

# A killed server leaves the port a moment later.
hex=$(printf ':%04X' "$port")
while grep -q "$hex 00000000:0000 0A" /proc/net/tcp; do sleep 0.1; done

server=$$
while kill -0 "$server" 2> /dev/null; do
    find /var/spool/smtpd/queue -name message -newer "$file.since" -exec grep -hm1 '^Subject: ' {} + 2> /dev/null |
        sed 's/^Subject: //; s/\r$//' > "$file.new" || :
    mv "$file.new" "$file"
    sleep 0.3
done &

exec smtpd -d -P mda -f "$file.conf" > "$file.log" 2>&1
