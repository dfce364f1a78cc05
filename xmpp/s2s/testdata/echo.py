# A component made with slixmpp that sends every message back, takes every request for its presence, and says "ready" when it is
# connected. Arguments: domain, secret, port.
import asyncio
import sys

from slixmpp.componentxmpp import ComponentXMPP

domain, secret, port = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Echo(ComponentXMPP):
    def __init__(self):
        super().__init__(domain, secret, "127.0.0.1", port)
        self.add_event_handler("session_start", lambda _: print("ready", flush=True))
        self.add_event_handler("message", self.message)
        self.add_event_handler("presence_subscribe", self.subscribe)
        self.register_plugin("xep_0030")
        self["xep_0030"].add_identity(category="gateway", itype="echo", name="Echo")

    def message(self, m):
        if m["type"] in ("chat", "normal") and m["body"]:
            r = self.make_message(mto=m["from"].bare, mfrom=m["to"].bare, mbody="echo: " + m["body"], mtype="chat")
            r.send()

    def subscribe(self, p):
        for kind in ("subscribed", "subscribe"):
            self.send_presence(pto=p["from"].bare, pfrom=p["to"].bare, ptype=kind)
        self.send_presence(pto=p["from"].bare, pfrom=p["to"].bare, pstatus="here")


c = Echo()
c.connect()
c.loop.run_until_complete(asyncio.wait_for(c.disconnected, 120))
