package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A peer can keep a connection open forever without sending anything. So every server and
// client of net/http sets its timeouts. The defaults of net/http, which have none, are not
// used.
func TestHTTP_ServersAndClientsHaveTimeouts(t *testing.T) {
	needs := map[string][]string{"Server": {"ReadTimeout", "WriteTimeout", "IdleTimeout", "MaxHeaderBytes"}, "Client": {"Timeout"}}
	defaults := []string{"Get", "Head", "Post", "PostForm", "DefaultClient", "ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS",
		"Handle", "HandleFunc", "DefaultServeMux"}
	fixtures := []string{"endpointtest", "lambdatest", "e2e", "bench"} // never deployed
	literals := 0
	err := filepath.WalkDir(filepath.Join("..", "..", ".."), func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() && slices.Contains(fixtures, d.Name()) {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				kind := httpName(n.Type)
				for _, name := range needs[kind] {
					literals++
					if !sets(n, name) {
						t.Errorf("%s: http.%s does not set %s", files.Position(n.Pos()), kind, name)
					}
				}
			case *ast.SelectorExpr:
				if name := httpName(n); slices.Contains(defaults, name) {
					t.Errorf("%s: http.%s is shared by the whole program and has no timeout", files.Position(n.Pos()), name)
				}
			case *ast.CallExpr:
				if f, is := n.Fun.(*ast.Ident); is && f.Name == "new" && len(needs[httpName(n.Args[0])]) > 0 {
					t.Errorf("%s: new(http.%s) has no timeout", files.Position(n.Pos()), httpName(n.Args[0]))
				}
			}
			return true
		})
		return nil
	})
	if err != nil || literals < 6 {
		t.Fatalf("checked %d timeouts, want at least 6: %v", literals, err)
	}
}

// httpName returns the name that a selector takes from net/http, or "".
func httpName(e ast.Expr) string {
	if s, is := e.(*ast.SelectorExpr); is {
		if of, is := s.X.(*ast.Ident); is && of.Name == "http" {
			return s.Sel.Name
		}
	}
	return ""
}

func sets(literal *ast.CompositeLit, name string) bool {
	return slices.ContainsFunc(literal.Elts, func(e ast.Expr) bool {
		kv, is := e.(*ast.KeyValueExpr)
		if !is {
			return false
		}
		key, is := kv.Key.(*ast.Ident)
		return is && key.Name == name
	})
}
