// Command validate says of Knative manifests what Knative's own webhooks would say:
// it reads them strictly, sets the defaults, and validates, with the types of
// knative.dev/serving and knative.dev/networking.
//
//	GOWORK=off go run . FILE...
//
// It is a module of its own, outside the workspace: what it requires must not end
// up in the functions. Kinds that are not Knative's are passed over.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/util/yaml"
	networking "knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/pkg/apis"
	serving "knative.dev/serving/pkg/apis/serving/v1"
	strict "sigs.k8s.io/yaml"
)

func main() {
	checked, failed := 0, 0
	for _, path := range os.Args[1:] {
		n, errs := file(path)
		checked += n
		for _, err := range errs {
			failed++
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
		}
	}
	fmt.Printf("%d passed, %d failed\n", checked-failed, failed)
	if failed > 0 || checked == 0 {
		os.Exit(1)
	}
}

// file checks the documents of a file and returns how many there were of Knative.
func file(path string) (checked int, errs []error) {
	f, err := os.Open(path)
	if err != nil {
		return 1, []error{err}
	}
	defer f.Close()
	for documents := yaml.NewYAMLReader(bufio.NewReader(f)); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return checked, errs
		}
		if err != nil {
			return checked + 1, append(errs, err)
		}
		known, err := check(document)
		if known {
			checked++
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
}

// A resource is what a webhook sees.
type resource interface {
	apis.Defaultable
	apis.Validatable
}

func check(document []byte) (known bool, err error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := strict.Unmarshal(document, &head); err != nil {
		return true, err
	}
	var r resource
	switch head.APIVersion + " " + head.Kind {
	case "serving.knative.dev/v1 Service":
		r = &serving.Service{}
	case "networking.internal.knative.dev/v1alpha1 Ingress":
		r = &networking.Ingress{}
	default:
		return false, nil
	}
	if err := strict.UnmarshalStrict(document, r); err != nil {
		return true, fmt.Errorf("%s %s: %w", head.Kind, head.Metadata.Name, err)
	}
	ctx := apis.WithinCreate(context.Background())
	r.SetDefaults(ctx)
	if faults := r.Validate(ctx).Filter(apis.ErrorLevel); faults != nil {
		return true, fmt.Errorf("%s %s: %w", head.Kind, head.Metadata.Name, faults)
	}
	return true, nil
}
