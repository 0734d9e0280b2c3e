// @ts-check
/** The list of people in a room, and their avatars. */

import { byId, make, reconcile, setText } from "./dom.js";

/** @typedef {import("./room.js").Room} Room */

const TONES = 8;

/** @typedef {{key: string, name: string, clients: string[]}} Person */

/** Groups connections by user and name: two tabs of one person are one entry. @param {Room | null} room @returns {Person[]} */
export function groupByPerson(room) {
  /** @type {Map<string, Person>} */
  const people = new Map();
  for (const { user, name, client } of room?.members?.values() ?? []) {
    const key = `${user}\n${name}`;
    const person = people.get(key);
    if (person) person.clients.push(client);
    else people.set(key, { key, name, clients: [client] });
  }
  return [...people.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/** @param {Room | null} room @param {string} client the id of this page's connection */
export function drawPeople(room, client) {
  byId("people-hint", HTMLElement).hidden = room?.phase !== "joined" || room.members !== null;
  const list = byId("people-list", HTMLElement);
  reconcile(list, groupByPerson(room), (person) => person.key, makePerson, (element, person) => {
    const [count, you] = element.querySelectorAll(".person-count, .person-you");
    const connections = person.clients.length;
    setText(count, connections > 1 ? `×${connections}` : "");
    setText(you, person.clients.includes(client) ? "you" : "");
    element.title = connections > 1 ? `${person.name}, ${connections} connections` : person.name;
  });
}

/** @param {Person} person */
function makePerson(person) {
  const item = make("li", "person");
  const avatar = make("span", "avatar");
  avatar.setAttribute("aria-hidden", "true");
  drawAvatar(avatar, person.name);
  item.append(avatar, make("span", "person-name", person.name), make("span", "person-count"), make("span", "person-you"));
  return item;
}

/** Draws the first letter of the name on one of eight colours. The same name has the same colour everywhere. @param {HTMLElement} element @param {string} name */
export function drawAvatar(element, name) {
  let hash = 0x811c9dc5; // FNV-1a; its upper bits are distributed best
  for (const character of name) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193);
  element.dataset.tone = String((hash >>> 16) % TONES);
  setText(element, [...name.trim()][0]?.toUpperCase() ?? "");
}
