//go:build !linux

package main

import (
	"fmt"
	"os"

	"ticketing.com/auth/shared/usage"
)

func main() {
	if len(os.Args) > 1 && usage.IsHelp(os.Args[1]) {
		fmt.Print(text)
		return
	}
	fmt.Fprintln(os.Stderr, "cluster: this command needs Linux namespaces; with Docker, use kind instead (see infra/docs/development.md)")
	os.Exit(2)
}
