'use strict';
const $ = id => document.getElementById(id);
// Whatever came from a client is text, and what would turn or hide text is shown as a code.
const safe = text => String(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
  ch => '\\u{' + ch.codePointAt(0).toString(16) + '}');
const make = (tag, text, kind) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};
const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const show = (element, shown) => { if (element.hidden === shown) element.hidden = !shown; };
const given = value => value !== null && value !== undefined;

const bytes = count => {
  if (!given(count)) return '-';
  for (const [unit, size] of [['TB', 1e12], ['GB', 1e9], ['MB', 1e6], ['kB', 1e3]])
    if (count >= size) return +(count / size).toFixed(count / size < 10 ? 2 : 1) + ' ' + unit;
  return count + ' B';
};
const rate = mbit => !given(mbit) ? '-' : mbit.toFixed(mbit < 10 ? 2 : 1) + ' Mbit/s';
const seconds = s => !given(s) ? '-' : s < 10 ? s.toFixed(3) + ' s' : s < 120 ? s.toFixed(1) + ' s' : Math.floor(s / 60) + ' min ' + Math.round(s % 60) + ' s';
const us = n => !given(n) ? '-' : n < 1000 ? n + ' us' : (n / 1000).toFixed(n < 1e5 ? 2 : 0) + ' ms';

const token = () => document.querySelector('meta[name=gatecast-token]').content
  || new URLSearchParams(location.hash.slice(1)).get('token')
  || new URLSearchParams(location.search).get('token') || '';
// A server with a key gives its figures to whoever has the token, where the page itself was asked for.
const at = path => { const held = new URLSearchParams(location.search).get('token');
  return held ? path + (path.includes('?') ? '&' : '?') + 'token=' + encodeURIComponent(held) : path; };

function figure(text, label, kind) {
  const span = make('span', label);
  span.prepend(make('b', text, kind));
  return span;
}
// What is not known has no place.
function figures(element, list) {
  const known = list.filter(([text]) => text !== '-');
  const key = JSON.stringify(known);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...known.map(([text, label, kind]) => figure(text, label, kind)));
}

const count = (number, word) => number + ' ' + word + (number === 1 ? '' : 's');

function link(text, kind) {
  set($('link'), text);
  $('link').className = kind;
  document.body.className = kind;
  if (kind === 'lost') document.title = 'no answer - gatecast';
}
// Asks for a change, and shows what came of it in the element `said`.
const post = (path, word, said) => fetch(path, {method: 'POST', headers: {'Gatecast-Token': word}})
  .then(answer => answer.text().then(text => set(said, text.trim() || (answer.ok ? 'done' : 'refused'))))
  .catch(() => set(said, 'the server did not answer'));

