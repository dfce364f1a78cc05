package main

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// The namespaces of a description of a project.
const (
	nsRDF  = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
	nsDOAP = "http://usefulinc.com/ns/doap#"
	nsXMPP = "https://linkmauve.fr/ns/xmpp-doap#"
)

// resource is an element that points to something.
type resource struct {
	At string `xml:"rdf:resource,attr"`
}

// doapText is words in a language.
type doapText struct {
	Lang string `xml:"xml:lang,attr"`
	Text string `xml:",chardata"`
}

// implements is an RFC, by its address, or an extension.
type implements struct {
	At  string        `xml:"rdf:resource,attr,omitempty"`
	XEP *supportedXEP `xml:"xmpp:SupportedXep"`
}

type supportedXEP struct {
	XEP     resource  `xml:"xmpp:xep"`
	Status  string    `xml:"xmpp:status"`
	Version string    `xml:"xmpp:version,omitempty"`
	Note    *doapText `xml:"xmpp:note"`
}

type doapProject struct {
	Name       string       `xml:"name"`
	Short      doapText     `xml:"shortdesc"`
	License    resource     `xml:"license"`
	Language   string       `xml:"programming-language"`
	OS         string       `xml:"os"`
	Category   resource     `xml:"category"`
	Implements []implements `xml:"implements"`
}

type doapFile struct {
	XMLName xml.Name    `xml:"rdf:RDF"`
	RDF     string      `xml:"xmlns:rdf,attr"`
	DOAP    string      `xml:"xmlns,attr"`
	XMPP    string      `xml:"xmlns:xmpp,attr"`
	Project doapProject `xml:"Project"`
}

// doapStatus are the words for how much is done. What is not done at all is not listed.
var doapStatus = map[string]string{"complete": "complete", "library": "complete", "partial": "partial"}

// renderDOAP writes which of XMPP's standards are done, in the form that lists of XMPP software read.
//
// spec: XEP-0453 §4
func renderDOAP(t *table) ([]byte, error) {
	f := doapFile{RDF: nsRDF, DOAP: nsDOAP, XMPP: nsXMPP, Project: doapProject{
		Name: "Parley", Short: doapText{"en", "A home server for interoperable messaging: one account for XMPP and Matrix clients"},
		License: resource{"https://www.apache.org/licenses/LICENSE-2.0"}, Language: "Go", OS: "Linux",
		Category: resource{nsXMPP + "category-server"},
	}}
	rows := slices.Clone(t.Standards)
	slices.SortFunc(rows, func(a, b *row) int { return compareSections(a.ID, b.ID) })
	for _, r := range rows {
		status := doapStatus[r.Status]
		number, isXEP := strings.CutPrefix(r.ID, "XEP-")
		rfc, isRFC := strings.CutPrefix(r.ID, "RFC ")
		switch {
		case status == "":
		case isRFC && strings.Contains(r.Name, "XMPP"):
			f.Project.Implements = append(f.Project.Implements, implements{At: "https://xmpp.org/rfcs/rfc" + rfc + ".html"})
		case isXEP:
			x := &supportedXEP{XEP: resource{"https://xmpp.org/extensions/xep-" + number + ".html"}, Status: status, Version: r.Version}
			if r.Note != "" {
				x.Note = &doapText{"en", r.Note}
			}
			f.Project.Implements = append(f.Project.Implements, implements{XEP: x})
		}
	}
	text, err := xml.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the DOAP: %w", err)
	}
	return []byte(xml.Header + string(text) + "\n"), nil
}
