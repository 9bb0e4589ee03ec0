package main

const (
	call = "go run ./infra/cluster"
	text = `usage: ` + call + ` up|status|cold|down [-dir DIR] [flags]

  up       build missing programs, start the cluster, install Knative and the
           system; if the cluster is up, install the changes
             -install   install missing Debian packages with apt-get, without their services
             -bare      install Kubernetes and Knative only, without the system
  status   report whether the cluster is up, and print how to reach it
  cold     measure requests to functions that are scaled to zero, and to a bare server
             -times 20
             -burst 50          instead sign in to 50 accounts at the same moment, with
                                signin scaled to zero
             -with NAME=VALUE   also measure currentuser with another setting, resource
                                request (cpu=500m) or number of layers (layers=12), or another
                                program (program=./infra/test/bench/consumer); can be repeated
  down     stop the cluster and remove everything but the build cache

  -dir DIR   where the cluster stores its files (/var/lib/ticketing-auth-cluster)
`
)
