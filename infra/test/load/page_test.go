package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/password"
)

// The figures of infra/docs/capacity.md that follow from the manifests and from constants are those of the
// code.
func TestPage_Settings(t *testing.T) {
	page, err := os.ReadFile("../../docs/capacity.md")
	if err != nil {
		t.Fatal(err)
	}
	hash, err := password.New(password.Config{}).Hash(t.Context(), "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	kib, _ := strconv.Atoi(regexp.MustCompile(`m=(\d+)`).FindStringSubmatch(hash)[1])
	manifests := manifests(t)
	functions, order, pods := map[string][]string{}, []string{}, 0
	for _, f := range catalog.Functions() {
		m := setting.FindStringSubmatch(manifests[f.Name])
		if m == nil {
			t.Fatalf("the manifest of %s has no settings", f.Name)
		}
		maxScale, target, concurrency, goMemory, cpus := m[1], m[2], m[3], m[4], m[5]
		row := fmt.Sprintf("%s | %s | %s | %s |\n", maxScale, concurrency, target, goMemory)
		if functions[row] = append(functions[row], f.Name); !slices.Contains(order, row) {
			order = append(order, row)
		}
		n := needs.Of(f)
		if n.UsesDatabase() {
			scale, _ := strconv.Atoi(maxScale)
			pods += scale
		}
		if n.Hashes {
			limit, _ := strconv.Atoi(cpus)
			slots := max(limit, 2) // GOMAXPROCS: see the documentation of package runtime
			if want := fmt.Sprintf("| hash memory of a pod | %d hashes × %d MiB, twice with garbage: %d MiB of %s |", slots, kib>>10, 2*slots*kib>>10, goMemory); !strings.Contains(string(page), want) {
				t.Errorf("%s: the page has no row %s", f.Name, want)
			}
		}
	}
	for _, row := range order {
		if want := "\n| " + strings.Join(functions[row], ", ") + " | " + row; !strings.Contains(string(page), want) {
			t.Errorf("the page has no row%s", want)
		}
	}
	if want := fmt.Sprintf("| connections to the primary at max-scale | %d to %d |", 2*pods, (mongodb.MaxPoolSize+1)*pods); !strings.Contains(string(page), want) {
		t.Errorf("the page has no row %s", want)
	}
}

var setting = regexp.MustCompile(`(?s)max-scale: "(\d+)".*autoscaling.knative.dev/target: "(\d+)".*containerConcurrency: (\d+)\n.*GOMEMLIMIT, value: (\d+MiB)}.*limits: {cpu: "(\d+)"`)

// manifests returns the manifest of each function.
func manifests(t *testing.T) map[string]string {
	t.Helper()
	services, err := knative.Services(catalog.Functions())
	if err != nil {
		t.Fatal(err)
	}
	events, err := knative.EventServices(catalog.Functions())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for document := range strings.SplitSeq(string(services)+"\n---\n"+string(events), "\n---\n") {
		if _, after, is := strings.Cut(document, "kind: Service\nmetadata:\n  name: "); is {
			name, _, _ := strings.Cut(after, "\n")
			all[name] = document
		}
	}
	return all
}
