// Package suite checks a netsvr gateway from outside: real WebSocket clients (gorilla/websocket) on
// one side, a business process (package netsvr) on the other. It needs a gateway on which no other
// business process is registered.
package suite

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"time"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"google.golang.org/protobuf/proto"
	"ringway.test/clients/netsvr"
)

const patience = 10 * time.Second

// Suite is one run against one gateway.
type Suite struct {
	Generation int
	URL        string
	WorkerAddr string
	TaskAddr   string
	worker     *netsvr.Worker
	bus        *netsvr.Bus
	waiting    []netsvr.Event
	serial     int
	fence      int
}

// Run does every check in order and ends the process with 1 at the first that fails.
func (s *Suite) Run() {
	s.registration()
	s.events()
	s.casts()
	s.bulkCasts()
	s.connectionInfo()
	s.topics()
	s.queries()
	s.topicQueries()
	s.metricsAndLimit()
	s.forceOffline()
	s.order()
	s.severalWorkers()
	s.shutdown()
}

type failure string

func fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func equal(what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		fail("%s: expected %v, got %v", what, want, got)
	}
}

// sameSet compares without regard to order; the order of sets is not part of the protocol.
func sameSet(what string, got []string, want ...string) {
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		fail("%s: expected %q, got %q", what, want, got)
	}
}

// check prints one line for a check, and ends the process if it fails.
func (s *Suite) check(name string, body func()) {
	defer func() {
		switch problem := recover().(type) {
		case nil:
			fmt.Println("ok   " + name)
		case failure:
			fmt.Printf("FAIL %s: %s\n", name, string(problem))
			os.Exit(1)
		default:
			panic(problem)
		}
	}()
	body()
}

func (s *Suite) send(cmd pb.Cmd, message proto.Message) { must(s.bus.Send(cmd, message)) }

func query[R proto.Message](s *Suite, cmd pb.Cmd, request proto.Message, response R) R {
	must(s.bus.Query(cmd, request, response))
	return response
}

// await takes the next event that matches out of the worker's stream; others stay for later.
func (s *Suite) await(what string, matches func(netsvr.Event) bool) netsvr.Event {
	for i, event := range s.waiting {
		if matches(event) {
			s.waiting = slices.Delete(s.waiting, i, i+1)
			return event
		}
	}
	deadline := time.After(patience)
	for {
		select {
		case event, open := <-s.worker.Events:
			if !open {
				fail("waiting for %s: the worker connection ended", what)
			}
			if matches(event) {
				return event
			}
			s.waiting = append(s.waiting, event)
		case <-deadline:
			fail("no %s within %v", what, patience)
		}
	}
}

func (s *Suite) awaitMessage(c *Client) *pb.Transfer {
	return s.await("Transfer of "+c.UniqId, func(e netsvr.Event) bool {
		return e.Message != nil && e.Message.UniqId == c.UniqId
	}).Message
}

func (s *Suite) awaitClose(c *Client) *pb.ConnClose {
	return s.await("ConnClose of "+c.UniqId, func(e netsvr.Event) bool {
		return e.Close != nil && e.Close.UniqId == c.UniqId
	}).Close
}
