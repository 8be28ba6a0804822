// Heartwheel is a server that keeps many TCP connections alive and knows
// within a stated bound when a peer is dead.
package main

import (
	"os"

	"heartwheel/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
