"""A mail server by aiosmtpd: accepts, refuses, stalls and drops at random, and writes down each accepted mail.

python3 aiosmtpd_server.py PORT FILE

FILE gets a line for each accepted mail, its subject, before the client gets the reply.
"""

import asyncio
import email
import email.policy
import os
import random
import signal
import sys

from aiosmtpd.controller import Controller


class Handler:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handle_MAIL(self, server, session, envelope, address, options):
        if random.random() < 0.04:
            return "421 busy"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        pick = random.random()
        if pick < 0.04:
            return "450 later"
        if pick < 0.08:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        pick = random.random()
        if pick < 0.03:
            return "554 refused"
        if pick < 0.06:
            return "451 later"
        if pick < 0.08:
            # The mail arrived, and is not accepted.
            server.transport.abort()
            return "451 later"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        os.write(self.file, (mail["Subject"] + "\n").encode())
        if pick < 0.12:
            server.transport.abort()
        elif pick < 0.13:
            await asyncio.sleep(3600)
        return "250 accepted"


def main():
    port, path = int(sys.argv[1]), sys.argv[2]
    controller = Controller(Handler(path), hostname="127.0.0.1", port=port)
    controller.start()
    signal.pause()


main()
