package translate

import (
	"strconv"
	"strings"

	"golang.org/x/net/html"
)

// Limits on formatted text.
const (
	maxNesting = 32
	maxStyled  = MaxText
)

// Styled turns the formatted text of other networks into plain text with message styling, which many clients show as formatted and
// all can read.
//
// spec: XEP-0393 §6.2
func Styled(markup string) string {
	s := &styler{z: html.NewTokenizer(strings.NewReader(markup))}
	for s.out.Len() < maxStyled {
		switch s.z.Next() {
		case html.ErrorToken:
			return s.finish()
		case html.TextToken:
			s.text(string(s.z.Text()))
		case html.StartTagToken, html.SelfClosingTagToken:
			s.start(s.z.Token())
		case html.EndTagToken:
			name, _ := s.z.TagName()
			s.end(string(name))
		}
	}
	return s.finish()
}

// styler writes lines. Every line begins with the quote marks of the block quotes that it stands in.
type styler struct {
	z      *html.Tokenizer
	out    strings.Builder
	line   strings.Builder
	quotes int
	pre    int
	hidden int // inside of an element that is not shown
	lists  []list
	links  []string
	blank  bool // an empty line is due before the next text
}

type list struct {
	ordered bool
	next    int
}

// marks are the directives of inline formatting.
var marks = map[string]string{
	"b": "*", "strong": "*", "i": "_", "em": "_", "s": "~", "del": "~", "strike": "~", "code": "`",
}

func (s *styler) start(t html.Token) {
	switch name := t.Data; name {
	case "b", "strong", "i", "em", "s", "del", "strike", "code":
		if s.pre == 0 && s.hidden == 0 {
			s.line.WriteString(marks[name])
		}
	case "br":
		s.newline()
	case "p", "div", "table", "h1", "h2", "h3", "h4", "h5", "h6":
		s.breakLine()
		s.blank = s.out.Len() > 0 && name != "div"
		if name[0] == 'h' {
			s.line.WriteString("*")
		}
	case "tr", "hr":
		s.breakLine()
	case "td", "th":
		if s.line.Len() > 0 {
			s.line.WriteString(" | ")
		}
	case "blockquote":
		s.breakLine()
		s.quotes = min(s.quotes+1, maxNesting)
	case "pre":
		s.breakLine()
		s.line.WriteString("```")
		s.newline()
		s.pre++
	case "ul", "ol":
		s.breakLine()
		if len(s.lists) < maxNesting {
			s.lists = append(s.lists, list{ordered: name == "ol", next: 1})
		}
	case "li":
		s.item()
	case "a":
		s.links = append(s.links, attr(t, "href"))
	case "img":
		s.line.WriteString(attr(t, "alt"))
	case "script", "style", "mx-reply", "head", "title":
		if t.Type == html.StartTagToken {
			s.hidden++
		}
	}
}

func (s *styler) end(name string) {
	switch name {
	case "b", "strong", "i", "em", "s", "del", "strike", "code":
		if s.pre == 0 && s.hidden == 0 {
			s.line.WriteString(marks[name])
		}
	case "h1", "h2", "h3", "h4", "h5", "h6":
		s.line.WriteString("*")
		s.breakLine()
		s.blank = true
	case "p":
		s.breakLine()
		s.blank = true
	case "div", "tr", "li", "table":
		s.breakLine()
	case "blockquote":
		s.breakLine()
		s.quotes = max(s.quotes-1, 0)
	case "pre":
		if s.pre == 0 {
			return
		}
		s.breakLine()
		s.pre--
		s.line.WriteString("```")
		s.breakLine()
	case "ul", "ol":
		s.breakLine()
		s.lists = s.lists[:max(len(s.lists)-1, 0)]
	case "a":
		s.endLink()
	case "script", "style", "mx-reply", "head", "title":
		s.hidden = max(s.hidden-1, 0)
	}
}

func (s *styler) item() {
	s.breakLine()
	if len(s.lists) == 0 {
		return
	}
	l := &s.lists[len(s.lists)-1]
	s.line.WriteString(strings.Repeat("  ", len(s.lists)-1))
	if l.ordered {
		s.line.WriteString(strconv.Itoa(l.next) + ". ")
		l.next++
	} else {
		s.line.WriteString("• ")
	}
}

// endLink adds where a link leads, unless its words say so or it is a mention.
func (s *styler) endLink() {
	if len(s.links) == 0 {
		return
	}
	href := s.links[len(s.links)-1]
	s.links = s.links[:len(s.links)-1]
	if webURL(href) && !strings.HasPrefix(href, "https://matrix.to/") && !strings.HasSuffix(s.line.String(), href) {
		s.line.WriteString(" <" + href + ">")
	}
}

func (s *styler) text(t string) {
	if s.hidden > 0 {
		return
	}
	if s.pre > 0 {
		lines := strings.Split(t, "\n")
		for i, l := range lines {
			if i > 0 {
				s.newline()
			}
			s.line.WriteString(l)
		}
		return
	}
	space := false
	for _, r := range t {
		if r == ' ' || r == '\n' || r == '\t' || r == '\r' {
			space = true
			continue
		}
		if space && s.line.Len() > 0 && !strings.HasSuffix(s.line.String(), " ") {
			s.line.WriteByte(' ')
		}
		space = false
		s.line.WriteRune(r)
	}
	if space && s.line.Len() > 0 && !strings.HasSuffix(s.line.String(), " ") {
		s.line.WriteByte(' ')
	}
}

// breakLine ends the line if there is something on it.
func (s *styler) breakLine() {
	if strings.TrimSpace(s.line.String()) != "" {
		s.newline()
	} else {
		s.line.Reset()
	}
}

func (s *styler) newline() {
	prefix := strings.Repeat("> ", s.quotes)
	if s.blank {
		s.out.WriteString(strings.TrimRight(prefix, " ") + "\n")
		s.blank = false
	}
	l := s.line.String()
	if s.pre == 0 {
		l = strings.TrimRight(l, " ")
	}
	s.out.WriteString(prefix + l + "\n")
	s.line.Reset()
}

func (s *styler) finish() string {
	s.breakLine()
	return clip(strings.TrimSpace(s.out.String()), maxStyled)
}

func attr(t html.Token, name string) string {
	for _, a := range t.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
