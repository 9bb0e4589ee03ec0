package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"sync"
)

// collect accepts OTLP in JSON, and prints the numbers of spans and of metric values by their names.
func collect(string) error {
	var output sync.Mutex // one line at a time
	return http.ListenAndServe(":4318", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var received export
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20)).Decode(&received); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		output.Lock()
		defer output.Unlock()
		json.NewEncoder(os.Stdout).Encode(map[string]any{"exported": received.counts()})
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	}))
}

// An export is what the scripts need of an OTLP request.
type export struct {
	ResourceSpans []struct {
		ScopeSpans []struct {
			Spans []struct{ Name string }
		}
	}
	ResourceMetrics []struct {
		ScopeMetrics []struct {
			Metrics []struct {
				Name           string
				Sum, Histogram struct {
					DataPoints []struct {
						AsInt, Count int `json:",string"`
					}
				}
			}
		}
	}
}

func (e export) counts() map[string]int {
	all := map[string]int{}
	for _, r := range e.ResourceSpans {
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				all[s.Name]++
			}
		}
	}
	for _, r := range e.ResourceMetrics {
		for _, scope := range r.ScopeMetrics {
			for _, m := range scope.Metrics {
				for _, p := range append(m.Sum.DataPoints, m.Histogram.DataPoints...) {
					all[m.Name] += p.AsInt + p.Count
				}
			}
		}
	}
	return all
}
