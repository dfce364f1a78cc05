package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"text/template"
)

//go:embed parley.toml.tmpl
var templateText string

var fileTemplate = template.Must(template.New("parley.toml").Parse(templateText))

// Template is the commented, minimal parley.toml that `parley init` writes:
// the domains are set, everything else is there as a comment with its default.
func Template(domains []string) ([]byte, error) {
	def := Default()
	quoted := make([]string, len(domains))
	for i, d := range domains {
		canon, err := CheckDomain(d)
		if err != nil {
			return nil, err
		}
		quoted[i] = strconv.Quote(canon)
		def.Domains = append(def.Domains, canon)
	}
	var b bytes.Buffer
	err := fileTemplate.Execute(&b, struct {
		Config
		DomainList string
	}{def, strings.Join(quoted, ", ")})
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return b.Bytes(), nil
}
