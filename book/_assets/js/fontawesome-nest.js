// The theme's Font Awesome replaces <i> by <svg>, which takes the icon away from widgets that hold on to their <i>. Nested, both live.
window.FontAwesomeConfig = { autoReplaceSvg: "nest" };
