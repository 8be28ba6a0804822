package settings

import (
	"regexp"
	"strings"

	"heartwheel/server"
)

var (
	// configField is a field of server.Config, as errors of package server write it.
	configField = regexp.MustCompile(`\bConfig\.([A-Z]\w*(?:\.[A-Z]\w*)?)(\[\d+\]\.[\w.]+)?`)
	nextWord    = regexp.MustCompile(`([a-z])([A-Z])`)
)

// keyOf returns the key of the setting that leads to a field of server.Config:
// MaxFrame is max-frame.
func keyOf(field string) string {
	if key := framingKeys[field]; key != "" {
		return key
	}
	switch field {
	case "Address":
		return "listen"
	case "Certificates":
		return "tls-cert"
	case "ClientCA":
		return "client-ca"
	case "Origins":
		return "origin"
	case "SecretFile", "Issuer", "Audience", "Leeway":
		field = "Jwt" + field
	case "KeyFiles":
		return "jwt-key"
	case "Hook":
		return "auth-hook"
	case "HookHeaders":
		return "auth-hook-header"
	}
	return strings.ToLower(nextWord.ReplaceAllString(field, "$1-$2"))
}

// inSettings returns e in the words of the settings: keys in place of fields.
func inSettings(e *server.FieldError) *server.FieldError {
	return &server.FieldError{Field: keyOf(e.Field), Value: e.Value, Want: replaceFields(e.Want, "")}
}

// InFlags returns err, of package server, with flags in place of fields of
// server.Config.
func InFlags(err error) error { return flagsError{err} }

type flagsError struct{ error }

func (e flagsError) Error() string { return replaceFields(e.error.Error(), "--") }
func (e flagsError) Unwrap() error { return e.error }

func replaceFields(text, prefix string) string {
	return configField.ReplaceAllStringFunc(text, func(field string) string {
		field = strings.TrimPrefix(field, "Config.")
		if list, inner, found := strings.Cut(field, "]."); found { // no flag sets it
			return strings.ToLower(list) + "]." + keyOf(inner)
		}
		return prefix + keyOf(field)
	})
}
