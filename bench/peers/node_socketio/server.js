// A chat server on Socket.IO: node server.js PORT
//
// As socket.io/docs/v4/performance-tuning and /memory-usage advise: the native add-on bufferutil of ws, and the HTTP
// request of a connection forgotten. Compression of WebSocket messages is off by default. Its own pings, which only
// a client of its protocol answers, come once an hour.

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
