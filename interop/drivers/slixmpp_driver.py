#!/usr/bin/python3
"""Drives slixmpp, an XMPP client library for Python (Debian's python3-slixmpp).

The library does streams, TLS, SASL, stream management, roster, rooms, archives, uploads
and blocking. What it has no plugin for, or an outdated one (replies, retraction as of
XEP-0424 0.4, bookmarks as of XEP-0402), is written here as the stanza that the XEP shows.

A message's handle, by which later ops name it, is its id attribute between two people,
and the room's stanza-id in a room: what reactions, replies and markers refer to there.
spec: XEP-0359 §3.1
"""

import asyncio
import logging
import pathlib
import uuid
from xml.etree import ElementTree as ET

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout, PresenceError
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from lines import Driver, http_download

NS = {
    "c": "jabber:client",
    "carbons": "urn:xmpp:carbons:2",
    "delay": "urn:xmpp:delay",
    "fallback": "urn:xmpp:fallback:0",
    "forward": "urn:xmpp:forward:0",
    "mam": "urn:xmpp:mam:2",
    "markers": "urn:xmpp:chat-markers:0",
    "muc": "http://jabber.org/protocol/muc#user",
    "direct-invite": "jabber:x:conference",
    "oob": "jabber:x:oob",
    "reactions": "urn:xmpp:reactions:0",
    "receipts": "urn:xmpp:receipts",
    "replace": "urn:xmpp:message-correct:0",
    "reply": "urn:xmpp:reply:0",
    "retract": "urn:xmpp:message-retract:1",
    "sid": "urn:xmpp:sid:0",
    "states": "http://jabber.org/protocol/chatstates",
    "stanzas": "urn:ietf:params:xml:ns:xmpp-stanzas",
}
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
PLUGINS = (
    "xep_0030 xep_0045 xep_0054 xep_0059 xep_0066 xep_0085 xep_0163 xep_0184 xep_0191 xep_0198 "
    "xep_0199 xep_0249 xep_0280 xep_0308 xep_0313 xep_0333 xep_0363 xep_0444"
).split()


def element(prefix, name, text=None, **attributes):
    e = ET.Element(f"{{{NS[prefix]}}}{name}", attributes)
    e.text = text
    return e


class SlixmppDriver(Driver):
    def __init__(self):
        super().__init__()
        self.xmpp = None
        self.reflections = {}  # (room, id attribute) -> future of the handle
        self.handles = {}  # (room, nick, id attribute) -> handle
        self.ids = {}  # handle of an own message -> its id attribute
        self.authors = {}  # handle -> address to name in a reply
        self.reactions = {}  # handle -> own reactions to it
        self.occupants = {}  # (room, nick) -> real address
        self.subjects = {}  # room -> what was last said

    def explain(self, error):
        if isinstance(error, IqError):
            return f"{error.condition}: {error.text}"
        if isinstance(error, IqTimeout):
            return "no answer"
        if isinstance(error, PresenceError):
            return f"{error.presence['error']['condition']}: {error.presence['error']['text']}"
        return super().explain(error)

    # Session

    async def op_login(self, user, password, ca, server=None, device=None):
        x = slixmpp.ClientXMPP(f"{user}/{device}" if device else user, password)
        x.ca_certs = pathlib.Path(ca)
        x.auto_authorize = None  # the test answers contact requests
        x.auto_subscribe = False
        for plugin in PLUGINS:
            x.register_plugin(plugin)
        x.register_handler(Callback("messages", StanzaPath("message"), self.on_message))
        x.register_handler(Callback("presences", StanzaPath("presence"), self.on_presence))
        x.add_event_handler("roster_update", self.on_roster)
        x.add_event_handler("disconnected", lambda _: self.event("disconnected"))
        x.add_event_handler("session_resumed", lambda _: self.event("connected", resumed=True))
        started = asyncio.get_running_loop().create_future()

        def settle(result):
            def handler(event):
                if not started.done():
                    started.set_result(result)
            return handler

        x.add_event_handler("session_start", settle(None))
        x.add_event_handler("failed_all_auth", settle("login refused"))
        x.add_event_handler("connection_failed", settle("connection failed"))
        self.xmpp = x
        x.connect(*server.rsplit(":", 1) if server else ())
        failure = await started
        if failure:
            x.abort()
            raise RuntimeError(failure)
        await x.get_roster()
        await x["xep_0280"].enable()
        x.send_presence()
        self.event("connected", resumed=False)
        return {"address": x.boundjid.bare, "device": x.boundjid.resource}

    async def op_logout(self):
        await self.xmpp.disconnect()

    async def op_drop(self):
        """Loses the connection without a word, and comes back by itself."""
        self.xmpp.abort()
        self.xmpp.connect()

    # Presence and contacts

    async def op_presence(self, show, status=None):
        if show == "offline":
            self.xmpp.send_presence(ptype="unavailable")
        else:
            self.xmpp.send_presence(pshow=None if show == "online" else show, pstatus=status)

    async def op_add_contact(self, user):
        await self.xmpp.update_roster(user)
        self.xmpp.send_presence_subscription(pto=user, ptype="subscribe")

    async def op_approve_contact(self, user):
        self.xmpp.send_presence_subscription(pto=user, ptype="subscribed")
        self.xmpp.send_presence_subscription(pto=user, ptype="subscribe")

    async def op_remove_contact(self, user):
        await self.xmpp.del_roster_item(user)

    async def op_contacts(self):
        roster = (await self.xmpp.get_roster())["roster"]["items"]
        return {"contacts": [{"user": str(j), "state": i["subscription"]} for j, i in roster.items()]}

    async def op_block(self, user):
        await self.xmpp["xep_0191"].block({slixmpp.JID(user)})

    async def op_unblock(self, user):
        await self.xmpp["xep_0191"].unblock({slixmpp.JID(user)})

    def on_roster(self, iq):
        for jid, item in iq["roster"]["items"].items():
            self.event("contact", user=str(jid), state=item["subscription"])

    # Messages

    def compose(self, to=None, room=None):
        """A message to a person or a room, with an id of its own."""
        message = self.xmpp.make_message(mto=room or to, mtype="groupchat" if room else "chat")
        message["id"] = str(uuid.uuid4())
        message.append(element("sid", "origin-id", id=message["id"]))
        return message

    async def post(self, message):
        """Sends a message. In a room it waits for the room's echo, which has the handle."""
        own = message["id"]
        if message["type"] != "groupchat":
            message.send()
            self.ids[own] = own
            return {"message": own}
        room = str(message["to"].bare)
        echo = self.reflections[(room, own)] = asyncio.get_running_loop().create_future()
        message.send()
        handle = await asyncio.wait_for(echo, 30)
        self.ids[handle] = own
        return {"message": handle}

    async def op_send(self, to=None, room=None, body="", texts=None, html=None, reply_to=None, quote=None):
        message = self.compose(to, room)
        if texts:  # one body for each language. spec: RFC 6121 §5.2.3
            for lang, text in texts.items():
                alternative = element("c", "body", text)
                alternative.set(LANG, lang)
                message.append(alternative)
        else:
            quoted = "".join(f"> {line}\n" for line in quote.splitlines()) if quote else ""
            message["body"] = quoted + body
            if quoted:
                fallback = element("fallback", "fallback")
                fallback.set("for", NS["reply"])
                fallback.append(element("fallback", "body", start="0", end=str(len(quoted))))
                message.append(fallback)
        if reply_to:  # spec: XEP-0461 §3.1
            author = self.authors.get(reply_to, room or to)
            message.append(element("reply", "reply", to=author, id=reply_to))
        if to:
            message["request_receipt"] = True
        message.enable("markable")
        return await self.post(message)

    async def op_edit(self, message, body, to=None, room=None):
        edited = self.compose(to, room)
        edited["body"] = body
        edited["replace"]["id"] = self.ids.get(message, message)
        return await self.post(edited)

    async def op_react(self, message, emoji, to=None, room=None):
        return await self.change_reactions(message, to, room, lambda own: own | {emoji})

    async def op_unreact(self, message, emoji, to=None, room=None):
        return await self.change_reactions(message, to, room, lambda own: own - {emoji})

    async def change_reactions(self, handle, to, room, change):
        own = self.reactions[handle] = change(self.reactions.get(handle, set()))
        message = self.compose(to, room)
        self.xmpp["xep_0444"].set_reactions(message, handle, sorted(own))
        message.append(ET.Element("{urn:xmpp:hints}store"))
        return await self.post(message)

    async def op_retract(self, message, to=None, room=None):
        retraction = self.compose(to, room)
        retraction["body"] = "/me retracted a message"
        fallback = element("fallback", "fallback")
        fallback.set("for", NS["retract"])
        retraction.append(fallback)
        retraction.append(element("retract", "retract", id=message))  # spec: XEP-0424 §3.1
        retraction.append(ET.Element("{urn:xmpp:hints}store"))
        return await self.post(retraction)

    async def op_typing(self, active, to=None, room=None):
        message = self.xmpp.make_message(mto=room or to, mtype="groupchat" if room else "chat")
        message["chat_state"] = "composing" if active else "active"
        message.send()

    async def op_mark_displayed(self, message, to=None, room=None):
        marker = self.compose(to, room)
        marker["displayed"]["id"] = message
        marker.append(ET.Element("{urn:xmpp:hints}store"))
        marker.send()

    async def op_history(self, to=None, room=None, limit=50):
        """The last messages of a talk or a room, oldest first, as the events they were."""
        results = self.xmpp["xep_0313"].iterate(
            jid=room, with_jid=None if room else to, reverse=True, rsm={"max": limit}, total=limit)
        newest_first = [result async for result in results]
        found = []
        for result in reversed(newest_first):
            stanza = result.xml.find("mam:result/forward:forwarded/c:message", NS)
            found += self.read(stanza, archived=result["mam_result"]["id"] if room else None)
        return {"events": found}

    # Files

    async def find_uploads(self):
        """The upload service. The library's own search fails on Python 3.11 (asyncio.wait)."""
        disco, domain = self.xmpp["xep_0030"], self.xmpp.boundjid.domain
        items = (await disco.get_items(jid=domain))["disco_items"]["items"]
        for address in [domain, *(str(item[0]) for item in items)]:
            try:
                info = await disco.get_info(jid=address)
            except IqError:
                continue
            if "urn:xmpp:http:upload:0" in info["disco_info"]["features"]:
                return address
        raise RuntimeError("no upload service")

    async def op_send_file(self, path, type, to=None, room=None, name=None):
        upload = self.xmpp["xep_0363"]
        upload.upload_service = upload.upload_service or await self.find_uploads()
        with open(path, "rb") as f:
            url = await upload.upload_file(
                pathlib.Path(name or path), input_file=f, content_type=type, timeout=60)
        message = self.compose(to, room)
        message["body"] = url
        message["oob"]["url"] = url
        if to:
            message["request_receipt"] = True
        return {"url": url, **await self.post(message)}

    async def op_download(self, url):
        return await http_download(url)

    # Rooms

    def nick(self, room):
        return self.xmpp["xep_0045"].our_nicks.get(slixmpp.JID(room)) or self.xmpp.boundjid.user

    async def op_create_room(self, room, name=None, public=True):
        result = await self.op_join(room)
        muc = self.xmpp["xep_0045"]
        form = await muc.get_room_config(slixmpp.JID(room))
        wanted = {
            "muc#roomconfig_roomname": name or room,
            "muc#roomconfig_persistentroom": True,
            "muc#roomconfig_publicroom": public,
            "muc#roomconfig_membersonly": not public,
        }
        for var, value in wanted.items():
            if var in form.get_fields():
                form.get_fields()[var]["value"] = value
        form["type"] = "submit"
        await muc.set_room_config(slixmpp.JID(room), form)
        return result

    async def op_join(self, room):
        await self.xmpp["xep_0045"].join_muc_wait(
            slixmpp.JID(room), self.xmpp.boundjid.user, maxstanzas=0, timeout=60)
        return {"room": room}

    async def op_leave(self, room):
        """Leaves for good: also the bookmark goes. spec: XEP-0402 §4"""
        self.xmpp["xep_0045"].leave_muc(slixmpp.JID(room), self.nick(room))
        iq = self.xmpp.make_iq_set()
        pubsub = ET.SubElement(iq.xml, "{http://jabber.org/protocol/pubsub}pubsub")
        retract = ET.SubElement(pubsub, "{http://jabber.org/protocol/pubsub}retract",
                                node="urn:xmpp:bookmarks:1", notify="true")
        ET.SubElement(retract, "{http://jabber.org/protocol/pubsub}item", id=room)
        try:
            await iq.send()
        except IqError as e:
            if e.condition != "item-not-found":
                raise

    async def op_invite(self, room, user):
        self.xmpp["xep_0045"].invite(slixmpp.JID(room), slixmpp.JID(user))

    def nick_of(self, room, user):
        for (r, nick), address in self.occupants.items():
            if r == room and address == user:
                return nick
        return slixmpp.JID(user).user

    async def op_kick(self, room, user, reason=""):
        await self.xmpp["xep_0045"].set_role(
            slixmpp.JID(room), self.nick_of(room, user), "none", reason=reason)

    async def op_ban(self, room, user, reason=""):
        await self.xmpp["xep_0045"].set_affiliation(
            slixmpp.JID(room), "outcast", jid=slixmpp.JID(user), reason=reason)

    async def op_unban(self, room, user):
        await self.xmpp["xep_0045"].set_affiliation(slixmpp.JID(room), "none", jid=slixmpp.JID(user))

    async def op_set_topic(self, room, topic):
        self.xmpp["xep_0045"].set_subject(slixmpp.JID(room), topic)

    async def op_members(self, room):
        return {"members": [
            {"nick": nick, "user": address} for (r, nick), address in self.occupants.items() if r == room]}

    # What arrives

    def on_message(self, stanza):
        for event in self.read(stanza.xml):
            self.event(event.pop("event"), **event)

    def read(self, m, own=False, archived=None):
        """The events that a message stanza is. archived is the room's ID for it."""
        for direction, ours in (("received", False), ("sent", True)):
            carbon = m.find(f"carbons:{direction}/forward:forwarded/c:message", NS)
            if carbon is not None and slixmpp.JID(m.get("from")).bare == self.xmpp.boundjid.bare:
                return self.read(carbon, own=ours)
        sender = slixmpp.JID(m.get("from"))
        if m.get("type") == "error":
            condition = m.find("c:error/*", NS)
            return [{
                "event": "error", "message": m.get("id"), "from": sender.bare,
                "condition": condition.tag.split("}")[1] if condition is not None else "",
                "text": m.findtext("c:error/stanzas:text", namespaces=NS),
            }]
        if m.get("type") == "groupchat":
            where = self.where_room(m, sender, archived)
        else:
            own = own or sender.bare == self.xmpp.boundjid.bare
            where = {"from": sender.bare, "handle": m.get("id")}
            if own:
                where.update(own=True, to=slixmpp.JID(m.get("to")).bare)
        delay = m.find("delay:delay", NS)
        if delay is not None:
            where["delayed"] = True
        invite = self.read_invite(m, sender)
        if invite:
            return [invite]
        return self.read_content(m, where)

    def where_room(self, m, sender, archived):
        room, nick, own_id = sender.bare, sender.resource, m.get("id")
        handle = archived or own_id
        for sid in m.findall("sid:stanza-id", NS):
            if sid.get("by") == room:
                handle = sid.get("id")
        self.handles[(room, nick, own_id)] = handle
        self.authors[handle] = str(sender)
        where = {"room": room, "nick": nick, "from": self.occupants.get((room, nick)), "handle": handle}
        if nick == self.nick(room):
            where["own"] = True
            echo = self.reflections.pop((room, own_id), None)
            if echo is not None and not echo.done():
                echo.set_result(handle)
        return where

    def read_invite(self, m, sender):
        mediated = m.find("muc:x/muc:invite", NS)
        if mediated is not None:
            inviter = slixmpp.JID(mediated.get("from"))  # perhaps by the address in the room
            named = {"nick": inviter.resource} if inviter.bare == sender.bare else {"from": inviter.bare}
            return {"event": "invite", "room": sender.bare, **named}
        direct = m.find("direct-invite:x", NS)
        if direct is not None and m.find("c:body", NS) is None:
            return {"event": "invite", "room": direct.get("jid"), "from": sender.bare}
        return None

    def read_content(self, m, where):
        handle = where.pop("handle")
        body, events = m.findtext("c:body", namespaces=NS), []

        def add(event, **fields):
            events.append({"event": event, **where, **fields})

        for state in m.findall("states:*", NS):
            add("typing", active=state.tag.endswith("}composing"))
        for kind, path in (("delivered", "receipts:received"), ("displayed", "markers:displayed")):
            for receipt in m.findall(path, NS):
                add("receipt", kind=kind, message=receipt.get("id"))
        replaced, reacted, retracted = (
            m.find(path, NS) for path in ("replace:replace", "reactions:reactions", "retract:retract"))
        subject = m.find("c:subject", NS)
        if reacted is not None:
            emojis = [r.text for r in reacted.findall("reactions:reaction", NS)]
            add("reaction", message=reacted.get("id"), reactions=sorted(emojis))
        elif retracted is not None:
            add("retraction", message=retracted.get("id"))
        elif replaced is not None:
            key = (where.get("room"), where.get("nick"), replaced.get("id"))
            add("edit", message=self.handles.get(key, replaced.get("id")), body=body)
        elif subject is not None and body is None and "room" in where:
            add("topic", topic=subject.text or "")
        elif body is not None:
            add("message", message=handle, body=body, **self.read_body(m))
            if "room" not in where:
                self.authors[handle] = where["from"]
        return events

    def read_body(self, m):
        fields = {}
        texts = {b.get(LANG): b.text for b in m.findall("c:body", NS) if b.get(LANG)}
        if texts:
            fields["texts"] = texts
        reply = m.find("reply:reply", NS)
        if reply is not None:
            fields["reply_to"] = reply.get("id")
        urls = [u.text for u in m.findall("oob:x/oob:url", NS)]
        if urls:
            fields["files"] = [{"url": u, "name": u.rsplit("/", 1)[1]} for u in urls]
        return fields

    def on_presence(self, stanza):
        sender, kind = stanza["from"], stanza["type"]
        muc = stanza.xml.find("muc:x", NS)
        if muc is not None:
            return self.on_occupant(stanza, muc)
        if kind == "subscribe":
            item = self.xmpp.client_roster[sender.bare]
            if item["pending_out"] or item["to"]:  # we asked first: answering is a courtesy
                self.xmpp.send_presence_subscription(pto=sender.bare, ptype="subscribed")
            else:
                self.event("contact_request", **{"from": sender.bare})
        elif kind == "unavailable":
            self.event("presence", **{"from": sender.bare}, show="offline")
        elif kind in ("available", "away", "xa", "dnd", "chat"):
            self.event("presence", **{"from": sender.bare}, status=stanza["status"] or None,
                       show="online" if kind == "available" else kind)

    def on_occupant(self, stanza, muc):
        """Someone's presence in a room. spec: XEP-0045 §7"""
        room, nick = stanza["from"].bare, stanza["from"].resource
        item = muc.find("muc:item", NS)
        real = item.get("jid") if item is not None else None
        user = slixmpp.JID(real).bare if real else self.occupants.get((room, nick))
        codes = {s.get("code") for s in muc.findall("muc:status", NS)}
        destroyed = muc.find("muc:destroy", NS)
        if destroyed is not None:  # and perhaps goes on elsewhere. spec: XEP-0045 §10.9
            self.event("moved", room=room, into=destroyed.get("jid"))
        if stanza["type"] == "unavailable":
            change = "kick" if "307" in codes else "ban" if "301" in codes else "leave"
            self.occupants.pop((room, nick), None)
        else:
            change = "join"
            self.occupants[(room, nick)] = user
        self.event("member", room=room, nick=nick, user=user, change=change,
                   own=True if "110" in codes else None)


async def main():
    logging.basicConfig(level=logging.DEBUG)  # the wire, to standard error
    await SlixmppDriver().serve()


if __name__ == "__main__":
    asyncio.run(main())
