// Listener is another service of the platform, as the end-to-end scripts play it: it
// takes any event, and prints what it was told as one line of JSON, its attributes and
// its data. It runs in the cluster beside the functions (see the overlay e2e), and the
// scripts read its log.
package main

import (
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

func main() {
	var one sync.Mutex // a line at a time
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		told := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			if attribute, is := strings.CutPrefix(strings.ToLower(name), "ce-"); is {
				told[attribute] = r.Header.Get(name)
			}
		}
		if json.Valid(data) {
			told["data"] = json.RawMessage(data)
		}
		one.Lock()
		defer one.Unlock()
		out.Encode(told)
	})))
}
