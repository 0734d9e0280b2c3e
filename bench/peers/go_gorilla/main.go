// A chat server like the chat example of gorilla/websocket: one goroutine owns the rooms. Each connection has a reader
// and a writer, with a buffered Go channel between the owner and the writer.
//
//	go-gorilla ADDRESS
//
// `join <channel>` is answered with `joined`. `to <channel> <data>` sends the data to all connections in the channel, and
// then `+` to the publisher.
package main

import (
	"bytes"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

const (
	waitingMax   = 256 // messages for one connection; with more, the connection is closed, as in the tutorial
	writeTimeout = 10 * time.Second
	pingInterval = time.Hour // the load side answers pings, but they are as rare as possible
)

var (
	upgrader = websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024} // compression is off by default
	joined   = []byte("joined")
	ack      = []byte("+")
)

type client struct {
	connection *websocket.Conn
	waiting    chan []byte
	gone       chan struct{} // closed when the writer has ended
}

// command is a message of a client: data is nil if the client joins the channel.
type command struct {
	from    *client
	channel string
	data    []byte
}

type hub struct {
	rooms    map[string]map[*client]bool
	clients  map[*client][]string // the channels of each
	arriving chan *client
	leaving  chan *client
	commands chan command
}

func (h *hub) run() {
	for {
		select {
		case c := <-h.arriving:
			h.clients[c] = nil
		case c := <-h.leaving:
			h.remove(c)
		case said := <-h.commands:
			if said.data == nil {
				h.join(said.from, said.channel)
				continue
			}
			for c := range h.rooms[said.channel] {
				h.send(c, said.data)
			}
			h.acknowledge(said.from)
		}
	}
}

func (h *hub) join(c *client, channel string) {
	room := h.rooms[channel]
	if room == nil {
		room = make(map[*client]bool)
		h.rooms[channel] = room
	}
	room[c] = true
	h.clients[c] = append(h.clients[c], channel)
	h.send(c, joined)
}

func (h *hub) send(c *client, message []byte) {
	if _, here := h.clients[c]; !here {
		return
	}
	select {
	case c.waiting <- message:
	default:
		h.remove(c)
	}
}

// acknowledge waits for the writer instead of closing the connection: without that, a publisher would get more than 256
// acks ahead of its writer, because the scheduler prefers the goroutine that was woken last.
func (h *hub) acknowledge(c *client) {
	if _, here := h.clients[c]; !here {
		return
	}
	select {
	case c.waiting <- ack:
	case <-c.gone:
	}
}

func (h *hub) remove(c *client) {
	channels, here := h.clients[c]
	if !here {
		return
	}
	for _, channel := range channels {
		delete(h.rooms[channel], c)
		if len(h.rooms[channel]) == 0 {
			delete(h.rooms, channel)
		}
	}
	delete(h.clients, c)
	close(c.waiting)
}

func (c *client) read(h *hub) {
	defer func() {
		h.leaving <- c
		c.connection.Close()
	}()
	for {
		_, message, err := c.connection.ReadMessage()
		if err != nil {
			return
		}
		word, rest, _ := bytes.Cut(message, []byte(" "))
		channel, data, _ := bytes.Cut(rest, []byte(" "))
		if string(word) == "join" {
			data = nil
		}
		h.commands <- command{c, string(channel), data}
	}
}

// write sends all waiting messages as one message, separated by line breaks.
func (c *client) write() {
	ticker := time.NewTicker(pingInterval)
	defer func() {
		ticker.Stop()
		close(c.gone)
		c.connection.Close()
	}()
	for {
		select {
		case message, open := <-c.waiting:
			c.connection.SetWriteDeadline(time.Now().Add(writeTimeout))
			if !open {
				c.connection.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			writer, err := c.connection.NextWriter(websocket.TextMessage)
			if err != nil {
				return
			}
			writer.Write(message)
			for range len(c.waiting) {
				writer.Write([]byte{'\n'})
				writer.Write(<-c.waiting)
			}
			if writer.Close() != nil {
				return
			}
		case <-ticker.C:
			c.connection.SetWriteDeadline(time.Now().Add(writeTimeout))
			if c.connection.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func main() {
	h := &hub{
		rooms:    make(map[string]map[*client]bool),
		clients:  make(map[*client][]string),
		arriving: make(chan *client),
		leaving:  make(chan *client),
		commands: make(chan command),
	}
	go h.run()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		connection, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{connection, make(chan []byte, waitingMax), make(chan struct{})}
		h.arriving <- c
		go c.write()
		go c.read(h)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
