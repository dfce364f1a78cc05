# Logs in with slixmpp and prints the mechanism that it chose. Arguments: port, CA file, mechanism or "-" for its own choice.
import asyncio
import sys

import slixmpp

port, ca, mechanism = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Client(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__("alice@example.org/test", "secret", sasl_mech=None if mechanism == "-" else mechanism)
        self.ca_certs = ca
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("failed_all_auth", lambda _: self.finish("failed"))

    def started(self, _):
        self.finish("%s %s" % (self.plugin["feature_mechanisms"].mech.name, self.boundjid.full))

    def finish(self, result):
        print(result, flush=True)
        self.disconnect()


c = Client()
c.connect(("127.0.0.1", port))
c.loop.run_until_complete(asyncio.wait_for(c.disconnected, 30))
