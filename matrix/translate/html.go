package translate

import (
	"regexp"
	"strings"

	"github.com/microcosm-cc/bluemonday"
)

// policy is the specification's list of what formatted text may hold.
//
// spec: MX 1.19 CS §10.2.1.1
var policy = func() *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements("del", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "p", "ul", "ol", "sup", "sub",
		"li", "b", "i", "u", "strong", "em", "s", "code", "hr", "br", "div", "table", "thead", "tbody", "tr",
		"th", "td", "caption", "pre", "details", "summary")
	p.AllowNoAttrs().OnElements("span")
	colour := regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	p.AllowAttrs("data-mx-bg-color", "data-mx-color").Matching(colour).OnElements("span", "font")
	p.AllowAttrs("data-mx-spoiler", "data-mx-maths").OnElements("span")
	p.AllowAttrs("data-mx-maths").OnElements("div")
	p.AllowAttrs("href").OnElements("a")
	p.AllowAttrs("target").Matching(regexp.MustCompile(`^_blank$`)).OnElements("a")
	p.AllowURLSchemes("https", "http", "ftp", "mailto", "magnet")
	p.AllowRelativeURLs(false)
	p.RequireParseableURLs(true)
	p.AllowAttrs("src").Matching(regexp.MustCompile(`^mxc://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9_-]+$`)).OnElements("img")
	p.AllowURLSchemes("mxc")
	number := regexp.MustCompile(`^[0-9]{1,5}$`)
	p.AllowAttrs("width", "height").Matching(number).OnElements("img")
	p.AllowAttrs("alt", "title").OnElements("img")
	p.AllowAttrs("start").Matching(number).OnElements("ol")
	p.AllowAttrs("class").Matching(regexp.MustCompile(`^language-[A-Za-z0-9_+#.-]+$`)).OnElements("code")
	p.SkipElementsContent("mx-reply", "script", "style")
	return p
}()

// maxTags bounds how deep tags may nest.
//
// spec: MX 1.19 CS §10.2.1.1
const maxTags = 100

// SanitizeHTML keeps of a formatted text what the specification allows: its
// elements and attributes, and of rich replies only what is new. Text that
// nests tags deeper than 100 levels is refused as a whole, and "" returned.
func SanitizeHTML(s string) string {
	if depth(s) > maxTags {
		return ""
	}
	return strings.TrimSpace(policy.Sanitize(s))
}

// depth is an upper bound on how deep the tags of s nest: elements that are
// never closed count as open.
func depth(s string) int {
	open, deepest := 0, 0
	for i := 0; i+1 < len(s); i++ {
		if s[i] != '<' {
			continue
		}
		switch c := s[i+1]; {
		case c == '/':
			open = max(open-1, 0)
		case 'a' <= c|0x20 && c|0x20 <= 'z' && !void(s[i+1:]):
			open++
			deepest = max(deepest, open)
		}
	}
	return deepest
}

// void reports whether a tag stands for itself.
func void(tag string) bool {
	end := strings.IndexByte(tag, '>')
	if end < 0 {
		return false
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(tag[:end], "/"), " ")
	switch strings.ToLower(name) {
	case "br", "hr", "img":
		return true
	}
	return strings.HasSuffix(tag[:end], "/")
}

// stripReply removes the quotation that replies used to begin with.
//
// spec: MX 1.19 CS §10.3
func stripReply(body string) string {
	rest := body
	for strings.HasPrefix(rest, "> ") {
		_, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return body
		}
		rest = after
	}
	return strings.TrimPrefix(rest, "\n")
}
