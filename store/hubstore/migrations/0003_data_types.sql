-- What XMPP clients keep was named without the colon that tells it from the account data of
-- Matrix clients, who were given it and could not read it.
UPDATE data SET type = 'xmpp:' || substr(type, 6)
  WHERE type IN ('xmpp.vcard-temp', 'xmpp.bookmarks.url') OR type LIKE 'xmpp.private:%';
