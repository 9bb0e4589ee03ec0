package observe

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/infra/local/pages"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// Path is the path of the page.
const Path = "/observe"

var (
	//go:embed page.html page.css
	files  embed.FS
	layout = template.Must(template.ParseFS(files, "page.html"))
)

const policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns a handler that serves the page, and passes all other paths to next. next must drain its
// requests itself.
func Handler(r *Recorder, next http.Handler) http.Handler {
	own := httpserver.Drain(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) { r.answer(request).Write(w) }))
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if path := request.URL.EscapedPath(); path == Path || strings.HasPrefix(path, Path+"/") {
			own.ServeHTTP(w, request)
			return
		}
		next.ServeHTTP(w, request)
	})
}

func (r *Recorder) answer(request *http.Request) endpoint.Response {
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		return endpoint.Refuse(apierror.Method("GET, HEAD"))
	}
	switch request.URL.EscapedPath() {
	case Path:
		return r.page(request.Context())
	case Path + "/page.css":
		style, err := files.ReadFile("page.css")
		if err != nil {
			return endpoint.Refuse(apierror.From(err))
		}
		return pages.Response("text/css; charset=utf-8", policy, style)
	}
	return endpoint.Refuse(apierror.New(apierror.NotFound, "There is nothing here."))
}

func (r *Recorder) page(ctx context.Context) endpoint.Response {
	metrics, err := r.collect(ctx)
	if err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	var out bytes.Buffer
	if err := layout.Execute(&out, struct {
		Limit  int
		Traces []traceView
		Values []valueView
	}{maxTraces, r.views(), valueViews(metrics)}); err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	return pages.Response("text/html; charset=utf-8", policy, out.Bytes())
}

// A traceView is a trace on the page.
type traceView struct {
	Name  string
	Start time.Time
	Took  string
	Spans []spanView
}

// A spanView is a span on the page. Left and Width are thousandths of the trace.
type spanView struct {
	Indent      string
	Name        string
	Attributes  string
	Took        string
	Failed      bool
	Left, Width int64
}

// views returns the traces, the newest first.
func (r *Recorder) views() (all []traceView) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range slices.Backward(r.traces) {
		all = append(all, viewOf(slices.Clone(t.spans)))
	}
	return all
}

func viewOf(spans []trace.ReadOnlySpan) traceView {
	slices.SortStableFunc(spans, func(a, b trace.ReadOnlySpan) int {
		return cmp.Or(a.StartTime().Compare(b.StartTime()), b.EndTime().Compare(a.EndTime())) // the parent first
	})
	began, end := spans[0].StartTime(), spans[0].EndTime()
	ids := map[oteltrace.SpanID]bool{}
	for _, s := range spans {
		ids[s.SpanContext().SpanID()] = true
		if s.EndTime().After(end) {
			end = s.EndTime()
		}
	}
	children := map[oteltrace.SpanID][]trace.ReadOnlySpan{} // those whose parent is elsewhere have the zero id
	for _, s := range spans {
		parent := s.Parent().SpanID()
		if !ids[parent] {
			parent = oteltrace.SpanID{}
		}
		children[parent] = append(children[parent], s)
	}
	v := traceView{Name: children[oteltrace.SpanID{}][0].Name(), Start: began, Took: milliseconds(end.Sub(began))}
	var add func(parent oteltrace.SpanID, depth int)
	add = func(parent oteltrace.SpanID, depth int) {
		for _, s := range children[parent] {
			v.Spans = append(v.Spans, spanView{
				Indent: strings.Repeat("\u2003", depth), Name: s.Name(), Attributes: text(s.Attributes()), Took: milliseconds(s.EndTime().Sub(s.StartTime())),
				Failed: s.Status().Code == codes.Error,
				Left:   share(s.StartTime().Sub(began), end.Sub(began)), Width: max(2, share(s.EndTime().Sub(s.StartTime()), end.Sub(began))),
			})
			add(s.SpanContext().SpanID(), depth+1)
		}
	}
	add(oteltrace.SpanID{}, 0)
	return v
}

// share returns the thousandths of a whole.
func share(part, whole time.Duration) int64 { return 1000 * int64(part) / max(1, int64(whole)) }

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

func text(attributes []attribute.KeyValue) string {
	var all []string
	for _, a := range attributes {
		all = append(all, string(a.Key)+"="+a.Value.String())
	}
	return strings.Join(all, " ")
}

// A valueView is a value of a metric on the page.
type valueView struct {
	Name, About, Attributes, Value string
}

func valueViews(all []metricdata.Metrics) (views []valueView) {
	for _, m := range all {
		add := func(attributes attribute.Set, value string) {
			views = append(views, valueView{m.Name, m.Description, text(attributes.ToSlice()), value})
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				add(p.Attributes, fmt.Sprint(p.Value))
			}
		case metricdata.Gauge[float64]:
			for _, p := range data.DataPoints {
				add(p.Attributes, fmt.Sprint(p.Value))
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				add(p.Attributes, fmt.Sprintf("%d × %.4f %s on average", p.Count, p.Sum/float64(p.Count), m.Unit))
			}
		}
	}
	slices.SortFunc(views, func(a, b valueView) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Attributes, b.Attributes))
	})
	return views
}
