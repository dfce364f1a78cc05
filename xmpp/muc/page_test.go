package muc

import (
	"fmt"
	"testing"

	"parley/xmpp/element"
)

// FuzzPage: whatever page is asked for, none is longer than its limit, and paging on from each comes to the end.
func FuzzPage(f *testing.F) {
	const rsm = "<set xmlns='http://jabber.org/protocol/rsm'>"
	for _, s := range []string{"", rsm + "</set>", rsm + "<max>2</max></set>", rsm + "<max>-1</max></set>", rsm + "<max>99999999999999999999</max></set>",
		rsm + "<after>b</after></set>", rsm + "<before/></set>", rsm + "<before>a</before><after>z</after></set>", rsm + "<index>3</index><max>1</max></set>"} {
		f.Add(s, 5)
	}
	f.Fuzz(func(t *testing.T, set string, n int) {
		q, err := element.Parse([]byte("<query xmlns='"+nsItems+"'>"+set+"</query>"), element.DefaultLimits)
		if err != nil {
			return
		}
		n = min(max(n, 0), 50)
		const most = 3
		ask := func(q *element.Element) ([]*element.Element, error) {
			p := pageOf(q, most)
			for i := range n {
				p.add(fmt.Sprintf("room%d@rooms.example.org", i), "")
			}
			out, err := p.answer()
			return out.ChildrenNamed("", "item"), err
		}
		items, err := ask(q)
		if len(items) > most {
			t.Fatalf("%s brings %d items", set, len(items))
		}
		for pages := 0; err == nil && len(items) > 0; pages++ {
			if pages > n {
				t.Fatalf("paging on after %s never ends", set)
			}
			next := element.New(nsItems, "query")
			next.Add(nsRSM, "set").Append(element.NewText(nsRSM, "after", items[len(items)-1].Attr("jid")))
			items, err = ask(next)
		}
		if err != nil && len(items) > 0 {
			t.Fatalf("%s brings items and %v", set, err)
		}
	})
}
