// A chat server on `ws`: node server.js PORT
//
// `join <channel>` is answered with `joined`. `to <channel> <data>` sends the data to all connections in the channel with
// one send() each, as in the README of ws, and then `+` to the publisher.
// bufferutil is installed, too, which the README recommends for performance. Compression is off by default.

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
  socket.on("error", () => {}); // the connection closes afterwards
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
