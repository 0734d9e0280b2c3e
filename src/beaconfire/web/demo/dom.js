// @ts-check
/** Two helpers for the page's elements. Text always goes in as text, never as markup. */

/**
 * The element with this id, which the page has. @template {Element} E
 * @param {string} id @param {new () => E} kind @returns {E}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page lacks #${id}`);
  return element;
}

/**
 * A new element with a class and text. @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {string} [className] @param {string} [text] @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/**
 * Makes the children of `parent` be those of `items`, in order, touching only what differs: elements keep their focus,
 * selection and place on the screen. `create` is called once per key, `update` every time.
 * @template T
 * @param {HTMLElement} parent @param {T[]} items @param {(item: T) => string} keyOf
 * @param {(item: T) => HTMLElement} create @param {(element: HTMLElement, item: T, index: number) => void} update
 */
export function reconcile(parent, items, keyOf, create, update) {
  const present = new Map(Array.from(parent.children, (child) => [/** @type {HTMLElement} */ (child).dataset.key, child]));
  items.forEach((item, index) => {
    const key = keyOf(item);
    let element = /** @type {HTMLElement | undefined} */ (present.get(key));
    present.delete(key);
    if (!element) {
      element = create(item);
      element.dataset.key = key;
    }
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
    update(element, item, index);
  });
  for (const element of present.values()) element.remove();
}

/** Sets the text only if it differs, so that what screen readers and selections hold stays. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
