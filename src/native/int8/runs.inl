// Loops whose bounds are known at compile time.
#pragma once

// Calls visit(std::integral_constant<int, count>()) for a count from 1 to Most.
template <int Most, typename Visit>
inline void with_constant(int count, const Visit& visit) {
    if constexpr (Most > 1)
        if (count < Most) return with_constant<Most - 1>(count, visit);
    visit(std::integral_constant<int, Most>());
}

// Cuts `count` into runs of nearly equal length, at most Most. The longer ones come first:
// visit(length as a constant, start, number of such runs).
template <int Most, typename Visit>
inline void each_run(int count, const Visit& visit) {
    const int runs = (count + Most - 1) / Most;
    if (runs == 0) return;
    const int length = count / runs, longer = count % runs;
    if (longer > 0)
        with_constant<Most>(length + 1, [&](auto constant) { visit(constant, 0, longer); });
    with_constant<Most>(
        length, [&](auto constant) { visit(constant, longer * (length + 1), runs - longer); });
}
