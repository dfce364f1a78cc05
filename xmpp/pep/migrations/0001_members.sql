-- What somebody else than the account may do at one of its nodes.
CREATE TABLE xmpp_pep_affiliations (
  account     TEXT NOT NULL,
  node        TEXT NOT NULL,
  who         TEXT NOT NULL,
  affiliation TEXT NOT NULL,
  PRIMARY KEY (account, node, who)
);

-- Who has subscribed expressly: a bare or a full JID.
CREATE TABLE xmpp_pep_subscriptions (
  account TEXT NOT NULL,
  node    TEXT NOT NULL,
  jid     TEXT NOT NULL,
  state   TEXT NOT NULL, -- subscribed or pending
  PRIMARY KEY (account, node, jid)
);
