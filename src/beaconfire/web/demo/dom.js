// @ts-check
/** Helpers for the elements of the page. Text is always inserted as text, never as markup. */

/**
 * Returns the element with this id. Throws if the page has none. @template {Element} E
 * @param {string} id @param {new () => E} kind @returns {E}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no element #${id}`);
  return element;
}

/**
 * Creates an element with a class and text. @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {string} [className] @param {string} [text] @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/**
 * Updates the children of `parent` to match `items` in their order. Unchanged elements are not touched, so they keep focus,
 * selection and scroll position. `create` is called once per key, `update` every time.
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

/** Sets the text only if it differs, so that selections and screen readers are not disturbed. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
