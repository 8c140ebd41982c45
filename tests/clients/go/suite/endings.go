package suite

import (
	"fmt"
	"slices"
	"time"

	pb "github.com/buexplain/netsvr-protocol-go/v6/netsvrProtocol"
	"ringway.test/clients/netsvr"
)

func (s *Suite) forceOffline() {
	s.check("ForceOffline: data, then close 1008; a repeated id gets it once", func() {
		c := s.open()
		s.send(pb.Cmd_ForceOffline, &pb.ForceOffline{
			UniqIds: []string{c.UniqId, nobody, c.UniqId}, Data: []byte("bye"),
		})
		c.expect("bye")
		c.expectClose(1008, "forceOffline")
		s.awaitClose(c)
		online := query(s, pb.Cmd_CheckOnline, &pb.CheckOnlineReq{UniqIds: ids(c)},
			&pb.CheckOnlineResp{})
		equal("online after ConnClose", len(online.UniqIds), 0)
	})
	s.check("ForceOfflineByCustomerId: every connection of the customer", func() {
		three := s.openMany(3)
		for i, customer := range []string{"ann", "bob", "ann"} {
			s.bind(three[i], customer)
		}
		s.send(pb.Cmd_ForceOfflineByCustomerId, &pb.ForceOfflineByCustomerId{
			CustomerIds: []string{"ann", "zoe"},
		})
		for _, c := range []*Client{three[0], three[2]} {
			c.expectClose(1008, "forceOfflineByCustomerId")
			s.awaitClose(c)
		}
		s.settle(three[1])
		three[1].close()
	})
	s.check("ForceOfflineGuest: at once for a delay of 0 or less, never for a customer", func() {
		guest, late, customer := s.open(), s.open(), s.open()
		s.bind(customer, "ann")
		s.send(pb.Cmd_ForceOfflineGuest, &pb.ForceOfflineGuest{
			UniqIds: ids(guest, customer), Data: []byte("no guests"),
		})
		s.send(pb.Cmd_ForceOfflineGuest, &pb.ForceOfflineGuest{UniqIds: ids(late), Delay: -1})
		guest.expect("no guests")
		guest.expectClose(1008, "forceOfflineGuest")
		late.expectClose(1008, "forceOfflineGuest")
		s.awaitClose(guest)
		s.awaitClose(late)
		s.settle(customer)
		customer.close()
	})
	s.check("ForceOfflineGuest with a delay: who signed in meanwhile stays", func() {
		guest, member := s.open(), s.open()
		begin := time.Now()
		s.send(pb.Cmd_ForceOfflineGuest, &pb.ForceOfflineGuest{
			UniqIds: ids(guest, member), Delay: 1,
		})
		s.settle(guest, member)
		s.bind(member, "ann")
		guest.expectClose(1008, "forceOfflineGuest")
		if waited := time.Since(begin); waited < 900*time.Millisecond {
			fail("closed after %v, expected 1 s", waited)
		}
		s.awaitClose(guest)
		s.settle(member)
		member.close()
	})
}

// collect reads n Transfers from each of several workers, whoever gets them.
func collect(n int, workers ...*netsvr.Worker) [][]string {
	got := make([][]string, len(workers))
	deadline := time.After(patience)
	for range n {
		i, event := anyEvent(deadline, workers)
		if event.Message == nil {
			fail("expected a Transfer, got %v", event)
		}
		got[i] = append(got[i], string(event.Message.Data))
	}
	return got
}

func anyEvent(deadline <-chan time.Time, workers []*netsvr.Worker) (int, netsvr.Event) {
	second := workers[0].Events
	if len(workers) > 1 {
		second = workers[1].Events
	}
	var event netsvr.Event
	var open bool
	index := 0
	select {
	case event, open = <-workers[0].Events:
	case event, open = <-second:
		index = len(workers) - 1
	case <-deadline:
		fail("events missing after %v", patience)
	}
	if !open {
		fail("a worker connection ended")
	}
	return index, event
}

func (s *Suite) severalWorkers() {
	c := s.open()
	sendTen := func() {
		for i := range 10 {
			c.send(fmt.Sprint(i))
		}
	}
	other, err := netsvr.Register(s.WorkerAddr, s.Generation, netsvr.OnMessage)
	must(err)
	s.check("two workers take turns; one that registered for messages gets only those", func() {
		s.open().close()
		sendTen()
		for i, got := range collect(10, s.worker, other) {
			if len(got) != 5 || !slices.IsSorted(got) {
				fail("worker %d got %q of 10 messages, expected 5 in order", i, got)
			}
		}
	})
	s.check("a worker that unregistered gets nothing more", func() {
		s.unregister(other)
		sendTen()
		equal("messages", len(collect(10, s.worker)[0]), 10)
	})
	s.check("Unregister of an unknown connId is answered", func() {
		socket, err := netsvr.Dial(s.WorkerAddr)
		must(err)
		defer socket.Close()
		request := &pb.UnRegisterReq{ConnId: "00000000000000000000000000000000"}
		must(socket.Query(pb.Cmd_Unregister, request, &pb.UnRegisterResp{}))
	})
	s.check("a worker that died gets no share", func() {
		dying, err := netsvr.Register(s.WorkerAddr, s.Generation, netsvr.OnMessage)
		must(err)
		dying.Close()
		// What the gateway wrote before it learned of the death is lost; then nothing is.
		for sent, inRow := 0, 0; inRow < 4; sent++ {
			text := fmt.Sprint("probe ", sent)
			c.send(text)
			if s.arrives(text) {
				inRow++
			} else {
				inRow = 0
			}
			if sent == 100 {
				fail("the dead worker still gets its share after 100 messages")
			}
		}
	})
	other.Close()
	c.close()
}

func (s *Suite) arrives(text string) bool {
	lost := time.After(200 * time.Millisecond)
	for {
		select {
		case event := <-s.worker.Events:
			if event.Message != nil && string(event.Message.Data) == text {
				return true
			}
		case <-lost:
			return false
		}
	}
}

func (s *Suite) unregister(worker *netsvr.Worker) {
	if s.Generation == 6 {
		must(worker.Unregister(nil))
		return
	}
	socket, err := netsvr.Dial(s.WorkerAddr)
	must(err)
	defer socket.Close()
	must(worker.Unregister(socket))
}

func (s *Suite) shutdown() {
	s.check("Unregister at the end: answered after the events that were under way", func() {
		c := s.open()
		for i := range 100 {
			c.send(fmt.Sprint(i))
		}
		for i := range 100 {
			equal("data", string(s.awaitMessage(c).Data), fmt.Sprint(i))
		}
		c.close()
		s.unregister(s.worker)
		s.bus.Close()
		s.worker.Close()
		for event := range s.worker.Events {
			fail("an event after Unregister: %v", event)
		}
	})
}
