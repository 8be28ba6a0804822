//go:build !unix

package doctor

import "errors"

func descriptorLimit() reading {
	return reading{err: errors.New("this system has no known descriptor limit")}
}
