package settings

import (
	"fmt"
	"regexp"
	"strings"

	"heartwheel/internal/config"
	"heartwheel/server"
)

// Names of environment variables.
const (
	EnvPrefix  = "HEARTWHEEL_"         // of every setting
	InheritEnv = EnvPrefix + "INHERIT" // the inherited descriptors; not a setting
	TokenEnv   = EnvPrefix + "TOKEN"   // the token of connect and ping; not a setting
)

// profileLayer leaves the timeout open: then it is 2.5 × the beat interval that
// a connection negotiates, and 2.5 × beat is each profile's own timeout.
func profileLayer(p server.Profile) config.Layer {
	return Table.Preset("profile "+p.Name, map[string]string{
		"beat":     p.Beat.String(),
		"beat-min": p.BeatMin.String(),
		"beat-max": p.BeatMax.String(),
	})
}

// EnvLayer is the layer of the HEARTWHEEL_* variables of environ.
func EnvLayer(environ []string) config.Layer {
	return Table.Environment(EnvPrefix, environ, notASetting)
}

// kubernetes matches the variables that Kubernetes sets in each pod for a service
// called heartwheel or heartwheel-ops.
var kubernetes = regexp.MustCompile(
	`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?$`)

// notASetting reports whether a variable with our prefix is of Kubernetes, of the
// shell completion, of another command, or from another process of ours.
func notASetting(name, value string) bool {
	switch name {
	case EnvPrefix + "ACTIVE_HELP", EnvPrefix + "COMPLETION_DESCRIPTIONS", InheritEnv, TokenEnv:
		return true
	}
	return kubernetes.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// FlagLayer is the layer of flags that were each given once.
func FlagLayer(values map[string]string) config.Layer {
	texts := map[string][]string{}
	for key, value := range values {
		texts[key] = []string{value}
	}
	return Table.Flags(texts)
}

// ArgumentLayer has the path of the file of settings that an argument names.
// It is read once, by this process.
func ArgumentLayer(path string) config.Layer { return config.Argument("config", path) }

// readFile reads the file at path, which must be one that other processes can read
// later if lasting is set. The error says what to do.
func readFile(path string, lasting bool) ([]byte, error) {
	if lasting {
		if err := config.CheckLasting(path); err != nil {
			return nil, err
		}
	}
	data, err := config.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w; give the path of a YAML file", err)
	}
	return data, nil
}
