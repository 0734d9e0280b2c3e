// A chat server on `ws`: node server.js PORT
//
// A client says `join <channel>` and is answered `joined`; it says `to <channel> <data>`, data goes to all in the
// channel by one send() each, as the README of ws broadcasts, and then the client is answered `+`.
// bufferutil is installed beside it, which that README offers for performance. Compression is off by default.

import { WebSocketServer } from "ws";

const rooms = new Map(); // channel -> set of sockets

function join(socket, channel) {
  let room = rooms.get(channel);
  if (!room) rooms.set(channel, (room = new Set()));
  room.add(socket);
  socket.channels.push(channel);
  socket.send("joined");
}

function leave(socket) {
  for (const channel of socket.channels) {
    const room = rooms.get(channel);
    room.delete(socket);
    if (room.size === 0) rooms.delete(channel);
  }
}

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });

server.on("connection", (socket) => {
  socket.channels = [];
  socket.on("error", () => {}); // closing follows
  socket.on("close", () => leave(socket));
  socket.on("message", (message) => {
    const text = message.toString();
    const space = text.indexOf(" ");
    if (text.startsWith("join ")) return join(socket, text.slice(space + 1));
    const end = text.indexOf(" ", space + 1);
    const data = text.slice(end + 1);
    for (const other of rooms.get(text.slice(space + 1, end)) ?? []) other.send(data);
    socket.send("+");
  });
});
