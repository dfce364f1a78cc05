package muc

import (
	"slices"
	"strconv"
	"strings"

	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// page is a list of items of which one page is asked for. Items are in the order of their JIDs, so that a page goes on where the last
// has ended though some have come and gone meanwhile.
//
// spec: XEP-0059 §2
type page struct {
	items       [][2]string // JID and name
	max         int
	after       string
	before      string
	last, bad   bool
	paged       bool // it was asked for by pages
	countedOnly bool
}

// pageOf reads for which page a query asks. Nobody gets more than most at a time: who asked for no pages gets the first, with the sign
// that there are more.
func pageOf(query *element.Element, most int) *page {
	p := &page{max: most}
	set := query.Child(nsRSM, "set")
	if set == nil {
		return p
	}
	p.paged = true
	if m := set.Child("", "max"); m != nil {
		n, err := strconv.Atoi(strings.TrimSpace(m.Text()))
		p.bad = err != nil || n < 0 || set.Child("", "index") != nil
		p.max, p.countedOnly = min(max(n, 0), most), n == 0
	}
	p.after = set.ChildText("", "after")
	if b := set.Child("", "before"); b != nil {
		p.last, p.before = true, b.Text()
	}
	return p
}

func (p *page) add(jid, name string) { p.items = append(p.items, [2]string{jid, name}) }

// answer writes the page.
func (p *page) answer() (*element.Element, error) {
	if p.bad {
		return nil, translate.Fail(translate.BadRequest, "max is a number, and pages have none")
	}
	slices.SortFunc(p.items, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	all := p.items
	if p.after != "" {
		i, _ := slices.BinarySearchFunc(all, p.after+"\x00", func(it [2]string, at string) int { return strings.Compare(it[0], at) })
		all = all[i:]
	}
	if p.before != "" {
		i, _ := slices.BinarySearchFunc(all, p.before, func(it [2]string, at string) int { return strings.Compare(it[0], at) })
		all = all[:i]
	}
	if n := len(all); n > p.max && p.last {
		all = all[n-p.max:]
	} else if n > p.max {
		all = all[:p.max]
	}
	q := element.New(nsItems, "query")
	for _, it := range all {
		item := q.Add("", "item").SetAttr("jid", it[0])
		if it[1] != "" {
			item.SetAttr("name", it[1])
		}
	}
	if !p.paged && len(all) == len(p.items) {
		return q, nil
	}
	set := q.Add(nsRSM, "set")
	if len(all) > 0 && !p.countedOnly {
		first := element.NewText(nsRSM, "first", all[0][0])
		i, _ := slices.BinarySearchFunc(p.items, all[0][0], func(it [2]string, at string) int { return strings.Compare(it[0], at) })
		set.Append(first.SetAttr("index", strconv.Itoa(i)), element.NewText(nsRSM, "last", all[len(all)-1][0]))
	}
	set.Append(element.NewText(nsRSM, "count", strconv.Itoa(len(p.items))))
	return q, nil
}
