package translate

// The namespaces of what Parley understands in and around messages.
const (
	NSClient      = "jabber:client"
	NSStanzas     = "urn:ietf:params:xml:ns:xmpp-stanzas"
	NSOOB         = "jabber:x:oob"                          // XEP-0066
	NSChatStates  = "http://jabber.org/protocol/chatstates" // XEP-0085
	NSXHTML       = "http://jabber.org/protocol/xhtml-im"   // XEP-0071
	NSMUC         = "http://jabber.org/protocol/muc"        // XEP-0045
	NSMUCUser     = "http://jabber.org/protocol/muc#user"   // XEP-0045
	NSReceipts    = "urn:xmpp:receipts"                     // XEP-0184
	NSDelay       = "urn:xmpp:delay"                        // XEP-0203
	NSConference  = "jabber:x:conference"                   // XEP-0249
	NSCarbons     = "urn:xmpp:carbons:2"                    // XEP-0280
	NSForward     = "urn:xmpp:forward:0"                    // XEP-0297
	NSHashes      = "urn:xmpp:hashes:2"                     // XEP-0300
	NSCorrect     = "urn:xmpp:message-correct:0"            // XEP-0308
	NSMAM         = "urn:xmpp:mam:2"                        // XEP-0313
	NSMarkers     = "urn:xmpp:chat-markers:0"               // XEP-0333
	NSHints       = "urn:xmpp:hints"                        // XEP-0334
	NSSID         = "urn:xmpp:sid:0"                        // XEP-0359
	NSReference   = "urn:xmpp:reference:0"                  // XEP-0372
	NSEME         = "urn:xmpp:eme:0"                        // XEP-0380
	NSSIMS        = "urn:xmpp:sims:1"                       // XEP-0385
	NSJingleFile  = "urn:xmpp:jingle:apps:file-transfer:5"  // XEP-0234
	NSOccupantID  = "urn:xmpp:occupant-id:0"                // XEP-0421
	NSFasten      = "urn:xmpp:fasten:0"                     // XEP-0422
	NSRetract0    = "urn:xmpp:message-retract:0"            // XEP-0424 before 0.4
	NSRetract     = "urn:xmpp:message-retract:1"            // XEP-0424
	NSModerate    = "urn:xmpp:message-moderate:1"           // XEP-0425
	NSFallback    = "urn:xmpp:fallback:0"                   // XEP-0428
	NSReactions   = "urn:xmpp:reactions:0"                  // XEP-0444
	NSFileMeta    = "urn:xmpp:file:metadata:0"              // XEP-0446
	NSSFS         = "urn:xmpp:sfs:0"                        // XEP-0447
	NSURLData     = "http://jabber.org/protocol/url-data"   // XEP-0103
	NSReply       = "urn:xmpp:reply:0"                      // XEP-0461
	NSThumbs      = "urn:xmpp:thumbs:1"                     // XEP-0264
	nsOMEMO       = "eu.siacs.conversations.axolotl"        // XEP-0384 before 0.4
	nsOMEMO2      = "urn:xmpp:omemo:2"                      // XEP-0384
	nsOpenPGP     = "urn:xmpp:openpgp:0"                    // XEP-0373
	nsLegacyPGP   = "jabber:x:encrypted"                    // XEP-0027
	nsOTRScheme   = "urn:xmpp:otr:0"                        // XEP-0364
	nsLegacyDelay = "jabber:x:delay"                        // XEP-0091
)
