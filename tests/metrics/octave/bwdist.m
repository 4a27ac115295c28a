function [D, I] = bwdist(BW)
% Single precision distances, as MATLAB's; of equally near pixels the first by column, then by row.
[r, c] = find(BW); places = find(BW);
[h, w] = size(BW);
D = zeros(h, w, 'single'); I = zeros(h, w);
for x = 1:w
  for y = 1:h
    [m, k] = min((r - y).^2 + (c - x).^2);
    D(y, x) = single(sqrt(m)); I(y, x) = places(k);
  end
end
end
