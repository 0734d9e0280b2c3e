// A chat server on Socket.IO: node server.js PORT
//
// It follows socket.io/docs/v4/performance-tuning and /memory-usage: it uses the native add-on bufferutil of ws, and
// discards the HTTP request of a connection. Compression of WebSocket messages is off by default. Its pings, which only
// a client of its protocol answers, are sent once an hour.

import { createServer } from "node:http";
import { Server } from "socket.io";

const HOUR_MS = 3600_000;

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  serveClient: false,
  httpCompression: false,
  perMessageDeflate: false,
  pingInterval: HOUR_MS,
  pingTimeout: HOUR_MS,
});

io.engine.on("connection", (connection) => {
  connection.request = null;
});

io.on("connection", (socket) => {
  socket.on("join", (channel, acknowledge) => {
    socket.join(channel);
    acknowledge();
  });
  socket.on("to", (channel, data, acknowledge) => {
    io.to(channel).emit("message", data);
    acknowledge();
  });
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
