"""Two matrix-nio clients talk in a room: argument 1 is the server's URL, 2 the
password of alice and bob. Prints "ok" at the end; any surprise is an exception."""
import asyncio
import sys

from nio import (AsyncClient, MessageDirection, ReceiptEvent, RedactedEvent, RoomMessageText, RoomPreset, RoomTopicEvent,
                 RoomVisibility, TypingNoticeEvent, UnknownEvent)


def ok(answer, what):
    assert not type(answer).__name__.endswith("Error"), f"{what}: {answer}"
    return answer


async def until(client, what, condition):
    for _ in range(20):
        if condition():
            return
        ok(await client.sync(timeout=5000), what)
    raise AssertionError(f"{client.user_id} never saw {what}")


async def main(url, password):
    alice, bob = (AsyncClient(url, f"@{n}:example.org") for n in ("alice", "bob"))
    try:
        seen = {"texts": [], "redacted": [], "typing": [], "receipts": [], "reactions": [], "topics": []}
        for c in (alice, bob):
            ok(await c.login(password), "login")
            ok(await c.sync(timeout=0, full_state=True), "first sync")

        def note(kind, value):
            return lambda room, event: seen[kind].append(value(event))

        bob.add_event_callback(note("texts", lambda e: e.body), RoomMessageText)
        bob.add_event_callback(note("redacted", lambda e: e.event_id), RedactedEvent)
        bob.add_event_callback(note("reactions", lambda e: e.source["content"]["m.relates_to"]["key"]), UnknownEvent)
        bob.add_event_callback(note("topics", lambda e: e.topic), RoomTopicEvent)
        bob.add_ephemeral_callback(note("typing", lambda e: list(e.users)), TypingNoticeEvent)
        alice.add_ephemeral_callback(note("receipts", lambda e: [r.user_id for r in e.receipts]), ReceiptEvent)

        room = ok(await alice.room_create(visibility=RoomVisibility.private, preset=RoomPreset.private_chat, name="Garden",
                                          topic="Flowers", invite=[bob.user_id]), "create").room_id
        await until(bob, "the invitation", lambda: room in bob.invited_rooms)
        assert bob.invited_rooms[room].name == "Garden", bob.invited_rooms[room].name
        ok(await bob.join(room), "join")
        await until(bob, "the room", lambda: room in bob.rooms)
        await until(alice, "bob", lambda: room in alice.rooms and bob.user_id in alice.rooms[room].users)
        assert bob.rooms[room].display_name == "Garden" and bob.rooms[room].topic == "Flowers"

        first = ok(await alice.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "hello bob"}), "send").event_id
        await until(bob, "the message", lambda: "hello bob" in seen["texts"])
        ok(await alice.room_send(room, "m.reaction", {
            "m.relates_to": {"rel_type": "m.annotation", "event_id": first, "key": "+1"}}), "react")
        await until(bob, "the reaction", lambda: "+1" in seen["reactions"])
        ok(await bob.room_read_markers(room, first, first), "read")
        await until(alice, "the receipt", lambda: [bob.user_id] in seen["receipts"])
        ok(await alice.room_typing(room, True), "type")
        await until(bob, "typing", lambda: [alice.user_id] in seen["typing"])
        ok(await alice.room_put_state(room, "m.room.topic", {"topic": "Trees"}), "topic")
        await until(bob, "the topic", lambda: bob.rooms[room].topic == "Trees")
        ok(await alice.room_redact(room, first, "oops"), "redact")
        state = ok(await bob.room_get_state(room), "state")
        assert any(e["type"] == "m.room.create" for e in state.events)
        page = ok(await bob.room_messages(room, bob.next_batch, direction=MessageDirection.back, limit=50), "messages")
        gone = [e for e in page.chunk if e.event_id == first]
        assert gone and isinstance(gone[0], RedactedEvent), gone
        around = ok(await bob.room_context(room, first), "context")
        assert around.event.event_id == first
        ok(await alice.room_kick(room, bob.user_id, "go"), "kick")
        left = ok(await bob.sync(timeout=5000), "the kick").rooms.leave
        assert left[room].timeline.events[-1].membership == "leave", left
        ok(await bob.room_forget(room), "forget")
        print("ok")
    finally:
        await alice.close()
        await bob.close()


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 120))
