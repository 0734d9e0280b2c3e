function join(url, room, hello, show) {
  let socket, position;
  const send = (message) => socket.send(JSON.stringify(message));
  const receive = (message) => {
    position.offset = message.offset;
    show(message);
  };
  const connect = () => {
    socket = new WebSocket(url);
    socket.onopen = () => {
      send({ type: "handshake", ...hello });
      send({ type: "join", room, since: position });
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "message") receive(message);
      if (message.type === "error") console.error(message.message, message.detail ?? "");
      if (message.type !== "joined") return;
      if (position && !message.recovered) console.warn("some messages are gone: read the history");
      position = { offset: message.offset, epoch: message.epoch };
      message.messages?.forEach(receive); // what was missed since the position we had
      console.log("joined", room);
    };
    const isFinal = (code) => (code >= 3500 && code < 4000) || code >= 4500;
    socket.onclose = ({ code }) => isFinal(code) || setTimeout(connect, 500 + Math.random() * 1000);
  };
  connect();
  return (text) => send({ type: "message", room, data: { text }, echo: true });
}
