package main

import (
	"time"

	"parley/config"
	"parley/hub"
	"parley/xmpp/guard"
)

// newGuard makes the doorman of XMPP from the configuration. Where the operator
// has said nobody whom one can write to about abuse, it is the postmaster.
func newGuard(cfg *config.Config, count hub.Counter) *guard.Guard {
	l := cfg.Limits
	contact := "mailto:postmaster@" + cfg.Domains[0]
	if abuse := cfg.Contact.Abuse; len(abuse) > 0 {
		contact = abuse[0]
	}
	second := func(n, burst int) guard.Rate { return guard.Rate{N: n, Per: time.Second, Burst: burst} }
	minute := func(n int) guard.Rate { return guard.Rate{N: n, Per: time.Minute} }
	hour := func(n int) guard.Rate { return guard.Rate{N: n, Per: time.Hour} }
	return guard.New(guard.Config{
		Rates: map[guard.Limit]guard.Rate{
			guard.Stanzas:            second(l.StanzasPerSecond, l.StanzaBurst),
			guard.AccountStanzas:     second(l.AccountStanzasPerSecond, l.AccountStanzaBurst),
			guard.ServerStanzas:      second(l.ServerStanzasPerSecond, l.ServerStanzaBurst),
			guard.Logins:             minute(l.LoginsPerMinute),
			guard.Registrations:      hour(l.RegistersPerHour),
			guard.Presences:          minute(l.PresencesPerMinute),
			guard.ContactPresences:   minute(l.ContactPresencesPerMinute),
			guard.RoomPresences:      minute(l.RoomPresencesPerMinute),
			guard.Nicks:              minute(l.NicksPerMinute),
			guard.Asks:               hour(l.AsksPerHour),
			guard.Strangers:          hour(l.StrangersPerHour),
			guard.Requests:           hour(l.RequestsPerHour),
			guard.StrangerSender:     hour(l.StrangerSenderPerHour),
			guard.UnknownServer:      hour(l.UnknownServerPerHour),
			guard.ArchivePages:       minute(l.ArchivePagesPerMinute),
			guard.ServerArchivePages: minute(l.ServerArchivePagesPerMinute),
			guard.ServerRequests:     minute(l.ServerIQsPerMinute),
			guard.Joins:              minute(l.RoomJoinsPerMinute),
			guard.ServerJoins:        minute(l.ServerJoinsPerMinute),
			guard.RoomMessages:       minute(l.RoomMessagesPerMinute),
			guard.Rooms:              hour(l.RoomsPerHour),
		},
		Count: count, Contact: contact,
		Servers: guard.Servers{
			Refuse: cfg.Federation.Refuse, Only: cfg.Federation.Only,
			HalfLife: l.ReputationHalfLife.D(), RefuseAt: l.ReputationRefuse,
		},
	})
}
