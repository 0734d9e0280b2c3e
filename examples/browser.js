function join(url, room, handshake, onMessage) {
  let socket, position;
  const send = (message) => socket.send(JSON.stringify(message));
  const receive = (message) => {
    position.offset = message.offset;
    onMessage(message);
  };
  const connect = () => {
    socket = new WebSocket(url);
    socket.onopen = () => {
      send({ type: "handshake", ...handshake });
      send({ type: "join", room, since: position });
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "message") receive(message);
      if (message.type === "error") console.error(message.message, message.detail ?? "");
      if (message.type !== "joined") return;
      if (position && !message.recovered) console.warn("some messages were lost: read the history");
      position = { offset: message.offset, epoch: message.epoch };
      message.messages?.forEach(receive); // the messages published since the old position
      console.log("joined", room);
    };
    const isFinal = (code) => (code >= 3500 && code < 4000) || code >= 4500;
    socket.onclose = ({ code }) => isFinal(code) || setTimeout(connect, 500 + Math.random() * 1000);
  };
  connect();
  return (text) => send({ type: "message", room, data: { text }, echo: true });
}
