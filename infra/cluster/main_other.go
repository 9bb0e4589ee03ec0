//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "cluster: it needs Linux, whose namespaces it runs in; with Docker, kind is the way (see the README)")
	os.Exit(2)
}
